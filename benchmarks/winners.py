"""Does a comparison name a winner where there is one, and none where there is none?

A/A: five configurations that differ in a key without effect, five blocks each in rotated order. A sweep that names a
winner is a false alarm. Planted: echo with a tenth more latency against echo, five blocks. A sweep that does not name
the quicker one is a miss. Every run is a real one of provider=echo, in this process.
"""

import argparse
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from hydra_plugins.runner_blocks.sweeper import rotate_blocks
from runner import app
from runner.cli.compose import compose_config
from runner.comparison.compare import Comparison, compare_folders
from runner.comparison.inference import share_interval
from runner.comparison.present.headline import headline
from runner.config.schema import RunConfig

BLOCKS, LATENCY_S = 5, 0.01
COMMON = ("provider=echo", "prompts.limit=16", "batch.size=1", "batch.warmup=0", "tracking=off")
SAME = tuple(f"limits.timeout_s={600 + number}" for number in range(5))
"""Echo's calls end long before any of these."""
SLOWER = (f"provider.latency_s={LATENCY_S}", f"provider.latency_s={1.1 * LATENCY_S}")


def main(*, sweeps: int, planted: int) -> None:
    """Measure and print."""
    logging.disable(logging.INFO)
    false, noise = 0, []
    for number in range(sweeps):
        comparison = _sweep([f"provider.latency_s={LATENCY_S}", *SAME], SAME, seed=number)
        false += (headline(comparison) or "").startswith("Fastest")
        noise.append(_relative_noise(comparison))
    _print("A/A sweeps that name a winner", false, sweeps)
    print(f"  noise of prompts/s between the repeats of one configuration: {fmean(noise):.2%}")
    found = 0
    for number in range(planted):
        comparison = _sweep(SLOWER, SLOWER, seed=number)
        found += (headline(comparison) or "").startswith("Fastest: run 0")
    _print("planted slowdowns of 10 % that are found", found, planted)


def _sweep(overrides: Sequence[str], configurations: Sequence[str], *, seed: int) -> Comparison:
    """Run every configuration once in each block, each block in another order, and compare."""
    jobs = [[f"repeat={block}", *_of(configuration, overrides), f"seed={seed}"]
            for block in range(1, BLOCKS + 1) for configuration in configurations]  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        numbered = {tuple(job): number for number, job in enumerate(jobs)}
        for job in rotate_blocks(jobs):
            app.run(_composed(tuple(job)), Path(scratch) / str(numbered[tuple(job)]))
        return compare_folders([Path(scratch) / str(number) for number in range(len(jobs))])


def _of(configuration: str, overrides: Sequence[str]) -> list[str]:
    """Return a configuration's own override, with those that all have."""
    return [
        configuration,
        *(override for override in overrides if override.partition("=")[0] != configuration.partition("=")[0]),
    ]


_CONFIGS: dict[tuple[str, ...], RunConfig] = {}


def _composed(job: tuple[str, ...]) -> RunConfig:
    """Compose each configuration once; repeat and seed are set on it."""
    numbers = {"repeat": int(job[0].partition("=")[2]), "seed": int(job[-1].partition("=")[2])}
    key = job[1:-1]
    if key not in _CONFIGS:
        _CONFIGS[key] = compose_config([*COMMON, *key])
    return _CONFIGS[key].model_copy(update=numbers)


def _relative_noise(comparison: Comparison) -> float:
    rates = [[run.metrics["prompts_per_s"] for run in row.runs] for row in comparison.rows]
    return fmean(stdev(measured) / fmean(measured) for measured in rates)


def _print(what: str, count: int, total: int) -> None:
    interval = share_interval(count, total)
    print(f"{what}: {count} of {total} (95 % interval {interval.low:.0%} to {interval.high:.0%})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=40, help="A/A sweeps of 25 runs each")
    parser.add_argument("--planted", type=int, default=100, help="sweeps of 10 runs each with a planted slowdown")
    main(**vars(parser.parse_args()))
