"""Sweeps in blocks: every configuration once, then again, and each block in another order.

What else the machine does, and how it warms, changes slowly. In blocks it hits all configurations alike, and the
rotation keeps any one of them from being first, or last, every time.
"""

from itertools import groupby

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

_BLOCK, _SEED = "repeat=", "seed="


class BlockSweeper(BasicSweeper):
    """Hydra's basic sweeper, with the jobs of each `repeat` rotated by the seed and the block's number.

    The order follows from the overrides, which each job's record has: the job's number is its position.
    """

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Return the jobs as lists of overrides, in the order in which they run, in batches for the launcher."""
        (jobs,) = BasicSweeper.split_arguments(overrides, None)
        ordered = rotate_blocks(jobs)
        return list(BasicSweeper.split_overrides_to_chunks(ordered, max_batch_size))


def rotate_blocks(jobs: list[list[str]]) -> list[list[str]]:
    """Rotate the jobs of each block; jobs of one block stand side by side, for `repeat` varies slowest.

    With one block, the order is the one given: it is the one that a reader expects, and no order is fairer.
    """
    blocks = [list(block) for _, block in groupby(jobs, key=_block)]
    if len(blocks) == 1:
        return jobs
    return [job for number, block in enumerate(blocks) for job in _rotated(block, number + _seed(block[0]))]


def _rotated(block: list[list[str]], steps: int) -> list[list[str]]:
    start = steps % len(block)
    return [*block[start:], *block[:start]]


def _block(job: list[str]) -> str | None:
    return next((override for override in job if override.startswith(_BLOCK)), None)


def _seed(job: list[str]) -> int:
    value = next((override.removeprefix(_SEED) for override in job if override.startswith(_SEED)), "0")
    return int(value) if value.isdigit() else 0
