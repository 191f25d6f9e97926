"""Does a comparison name a winner where there is one, and none where there is none?

A/A: five configurations that differ in a key without effect, five blocks each in rotated order. A sweep that names a
winner is a false alarm. Planted: one of two configurations takes a tenth longer, five blocks; on echo with 3 % noise
from run to run. A sweep that does not name the quicker one is a miss. Both are run on echo and on the embedded model.
Every run is a real one, in this process.
"""

import argparse
import logging
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp
from pathlib import Path
from statistics import fmean, stdev
from types import TracebackType
from typing import Any, Self

from hydra_plugins.runner_blocks.sweeper import rotate_blocks
from runner.cli.compose import compose_config
from runner.comparison.compare import Comparison, compare_folders
from runner.comparison.inference import share_interval
from runner.comparison.present.headline import headline
from runner.comparison.present.tables import speed_table
from runner.config.schema import GenerationParams, RunConfig
from runner.config.waits import Waits
from runner.prompts import load_prompts
from runner.record.folder import RunFolder
from runner.record.writer import OutcomeWriter
from runner.run.execute import execute
from runner.run.prepare import prepare
from runner.run.result import SilentObserver
from runner.types import Generated, Prompt

BLOCKS, NOISE, SLOWDOWN = 5, 0.03, 1.1
ECHO = (
    *("provider=echo", "provider.latency_s=0.01", "prompts.limit=16", "batch.mode=static", "batch.size=1"),
    *("batch.warmup=0", "tracking=off"),
)
MODEL = ("prompts.limit=16", "batch.size=8", "generation.max_tokens=16", "tracking=off")


@dataclass(frozen=True)
class Configuration:
    """A configuration of a sweep: calls end long before its timeout, which distinguishes it in the record.

    Attributes:
        timeout_s: limits.timeout_s.
        factor: how many times as long as the provider's own time a call takes.
    """

    timeout_s: int
    factor: Callable[[], float] = lambda: 1.0


SAME = tuple(Configuration(600 + number) for number in range(5))


class SlowedProvider:
    """A provider whose calls take `factor` times as long as they do."""

    def __init__(self, provider: Any, factor: float) -> None:
        self._provider, self._factor = provider, factor

    def __enter__(self) -> Self:
        self._provider.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._provider.__exit__(kind, error, trace)

    def count_tokens(self, prompt: Prompt) -> int:
        """Return what the provider counts."""
        count: int = self._provider.count_tokens(prompt)
        return count

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        """Generate, and wait for the rest of the time."""
        start = time.perf_counter()
        results: Sequence[Generated] = self._provider.generate_batch(prompts, params)
        time.sleep((self._factor - 1) * (time.perf_counter() - start))
        return results


def main(*, sweeps: int, planted: int, model_sweeps: int) -> None:
    """Measure and print."""
    logging.disable(logging.INFO)
    equal = [_sweep(ECHO, SAME, seed=number) for number in range(sweeps)]
    _print("A/A sweeps of echo that name a winner", sum(_names_a_winner(comparison) for comparison in equal), sweeps)
    _print("  and that have a star in any column", sum(map(_has_a_star, equal)), sweeps)
    if equal:
        print(
            f"  noise of prompts/s between the repeats of one configuration: {fmean(map(_relative_noise, equal)):.2%}"
        )
    sources = [random.Random(number) for number in range(planted)]  # noqa: S311 - noise, and no secret
    slowed = [_sweep(ECHO, _noisy_pair(source), seed=number) for number, source in enumerate(sources)]
    right = sum((headline(comparison) or "").startswith("Fastest: run 0") for comparison in slowed)
    _print(f"planted slowdowns of echo of 10 %, with {NOISE:.0%} noise, that are found", right, planted)
    for number in range(model_sweeps):
        print(f"A/A of the embedded model: {headline(_sweep(MODEL, SAME, seed=number))}")
        comparison = _sweep(MODEL, (Configuration(600), Configuration(601, lambda: SLOWDOWN)), seed=number)
        (ratio,) = (row.speedup for row in comparison.rows if row.speedup)
        interval = f"{ratio.estimate.low:.3f} to {ratio.estimate.high:.3f}" if ratio.estimate else "no interval"
        print(f"slowdown of 10 % of the embedded model: {ratio.ratio:.3f} x ({interval}); {headline(comparison)}")


def _noisy_pair(source: random.Random) -> tuple[Configuration, Configuration]:
    """Return two configurations with noise from run to run; both take a fifth longer, so that noise can be negative."""
    return (
        Configuration(600, lambda: 1.2 * exp(source.gauss(0, NOISE))),
        Configuration(601, lambda: 1.2 * SLOWDOWN * exp(source.gauss(0, NOISE))),
    )


def _sweep(common: Sequence[str], configurations: Sequence[Configuration], *, seed: int) -> Comparison:
    """Run every configuration once in each block, each block in another order, and compare."""
    jobs = [[f"repeat={block}", f"limits.timeout_s={configuration.timeout_s}", f"seed={seed}"]
            for block in range(1, BLOCKS + 1) for configuration in configurations]  # fmt: skip
    factors = {f"limits.timeout_s={configuration.timeout_s}": configuration.factor for configuration in configurations}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {tuple(job): Path(scratch) / str(number) for number, job in enumerate(jobs)}
        for job in rotate_blocks(jobs):
            numbers = {"repeat": int(job[0].partition("=")[2]), "seed": seed}
            config = _composed((*common, job[1])).model_copy(update=numbers)
            _run(config, folders[tuple(job)], factors[job[1]]())
        return compare_folders(list(folders.values()))


@cache
def _composed(overrides: tuple[str, ...]) -> RunConfig:
    """Compose each configuration once: that takes as long as a short run."""
    return compose_config(overrides)


def _run(config: RunConfig, path: Path, factor: float) -> None:
    """Execute one configuration as `app.run` does, with a slowed provider."""
    folder = RunFolder(path)
    prompts = load_prompts(config.prompts).prompts
    path.mkdir()
    run = prepare(config, prompts, folder, Waits())
    slowed: Any = SlowedProvider(run.calls.provider, factor)
    with OutcomeWriter(folder) as writer:
        folder.write_config(run.config)
        folder.write_prompts(prompts)
        execute(replace(run, calls=replace(run.calls, callee=slowed)), writer, frozenset(), SilentObserver())


def _names_a_winner(comparison: Comparison) -> bool:
    return (headline(comparison) or "").startswith("Fastest")


def _has_a_star(comparison: Comparison) -> bool:
    return any(cell.endswith("*") for row in speed_table(comparison, width=0).rows for cell in row)


def _relative_noise(comparison: Comparison) -> float:
    rates = [[run.metrics["prompts_per_s"] for run in row.runs] for row in comparison.rows]
    return fmean(stdev(measured) / fmean(measured) for measured in rates)


def _print(what: str, count: int, total: int) -> None:
    if total:
        interval = share_interval(count, total)
        print(f"{what}: {count} of {total} (95 % interval {interval.low:.0%} to {interval.high:.0%})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=40, help="A/A sweeps of echo, of 25 runs each")
    parser.add_argument("--planted", type=int, default=100, help="sweeps of echo, of 10 runs each, with a slowdown")
    parser.add_argument("--model-sweeps", type=int, default=3, help="the same on the embedded model, 35 runs each")
    main(**vars(parser.parse_args()))
