"""Sweeps in blocks: every configuration once, then again, and each block in another order.

What else the machine does, and how it warms, changes slowly. In blocks it hits all configurations alike, and the
rotation keeps any one of them from being first, or last, every time.
"""

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from runner.cli.guard import refuse_wrong_jobs
from runner.config.secrets import refuse_secrets_in
from runner.record.lock import sweep_lock


class BlockSweeper(BasicSweeper):
    """Hydra's basic sweeper, with the jobs of each `repeat` rotated by the seed and the block's number.

    The order follows from the overrides, which each job's record has: the job's number is its position.
    """

    _refused: Set[str] = frozenset()

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs but those that are wrong, for which nothing is made.

        None runs, and nothing is written, where the configuration of one holds a secret. While jobs run the sweep's
        folder is locked, and then while `cli.main` finishes: who finds it unlocked knows that the sweep has ended.
        """
        overrides = OverridesParser.create(self.hydra_context.config_loader).parse_overrides(arguments)
        composed = {}
        for job in self.split_arguments(overrides, None)[0]:
            composed[" ".join(job)] = self.hydra_context.config_loader.load_sweep_config(self.config, job)
            refuse_secrets_in(OmegaConf.to_container(composed[" ".join(job)], resolve=False))
        self._refused = refuse_wrong_jobs(composed)
        with sweep_lock(Path(self.config.hydra.sweep.dir)):
            return super().sweep(arguments)

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """Return the jobs to launch next."""
        return [job for job in super().get_job_batch() if " ".join(job) not in self._refused]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do nothing: `sweep` has composed every job."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Return the jobs as lists of overrides, in the order in which they run, in batches for the launcher."""
        (jobs,) = BasicSweeper.split_arguments(overrides, None)
        ordered = rotate_blocks(jobs)
        return list(BasicSweeper.split_overrides_to_chunks(ordered, max_batch_size))


def rotate_blocks(jobs: list[list[str]]) -> list[list[str]]:
    """Bring the jobs of each `repeat` together, wherever it stands on the command line, and rotate each block.

    With one block, the order is the one given: it is the one that a reader expects, and no order is fairer.
    """
    blocks: dict[str | None, list[list[str]]] = {}
    for job in jobs:
        blocks.setdefault(_value(job, "repeat"), []).append(job)
    if len(blocks) == 1:
        return jobs
    return [job for number, block in enumerate(blocks.values()) for job in _rotated(block, number + _seed(block[0]))]


def _rotated(block: list[list[str]], steps: int) -> list[list[str]]:
    start = steps % len(block)
    return [*block[start:], *block[:start]]


def _value(job: list[str], key: str) -> str | None:
    """Return the value of an override; `+key=` and `++key=` are the same key."""
    values = (override.lstrip("+").partition("=") for override in job)
    return next((value for name, _, value in values if name == key), None)


def _seed(job: list[str]) -> int:
    value = _value(job, "seed") or "0"
    return int(value) if value.isdigit() else 0
