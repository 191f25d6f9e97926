"""What do token ids and the machine record cost? CPU seconds of each, and their share of a run's time.

One run is made, of the embedded model unless overrides say otherwise. Then its record is written and read again in
pairs: outcomes with token ids against the same without, and what the machine record adds to a run. The parts are timed
by themselves, because the noise of a whole run is many times their cost.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median

from runner import app
from runner.cli.compose import compose_config
from runner.record.folder import RunFolder
from runner.record.writer import OutcomeWriter
from runner.run.first_call import FirstCalls
from runner.run.machine import MachineCounters
from runner.types import Completion, Outcome

_REPEATS = 20
"""How often each part is done in one measurement: once is too short for the clock."""


def main(*, pairs: int, overrides: Sequence[str]) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        result = app.run(compose_config([*overrides, "tracking=off"]), Path(scratch) / "run")
        outcomes = list(result.folder.outcomes.read())
        bare = [replace(item, token_ids=None) if isinstance(item, Completion) else item for item in outcomes]
        ids = sum(len(item.token_ids or ()) for item in outcomes if isinstance(item, Completion))
        cpu_s, duration_s = result.metrics["cpu_s"], result.metrics["duration_s"]
        print(f"a run of {len(outcomes)} outcomes with {ids} token ids: {cpu_s:.3f} CPU s in {duration_s:.3f} s")
        folders = [Path(scratch) / name for name in ("ids", "bare")]
        shares = []
        for _ in range(pairs):
            ids_s = _cpu_s(partial(_record, folders[0], outcomes)) - _cpu_s(partial(_record, folders[1], bare))
            machine_s = _cpu_s(partial(_machine_record, outcomes))
            shares.append((ids_s + machine_s) / duration_s)
            print(f"token ids {1000 * ids_s:7.3f} ms   machine record {1000 * machine_s:7.3f} ms   {shares[-1]:.4%}")
    print(f"added: {median(shares):.4%} of the run's time (median of {pairs} pairs; the bound is 1 %)")


def _cpu_s(part: Callable[[], None]) -> float:
    """Return the CPU seconds of a part, all threads."""
    start = time.process_time()
    for _ in range(_REPEATS):
        part()
    return (time.process_time() - start) / _REPEATS


def _record(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the outcomes call by call, and read them in one pass, as a run does."""
    path.mkdir(exist_ok=True)
    folder = RunFolder(path)
    folder.outcomes.path.unlink(missing_ok=True)
    with OutcomeWriter(folder) as writer:
        for _, call in groupby(outcomes, key=lambda outcome: outcome.batch):
            writer.append(list(call))
    for _ in folder.outcomes.read_marked():
        continue


def _machine_record(outcomes: Sequence[Outcome]) -> None:
    """Read the counters at both ends, describe their difference, and follow the first call."""
    before = MachineCounters.read()
    json.dumps(asdict(before.until(MachineCounters.read())))
    calls = FirstCalls()
    for outcome in outcomes:
        calls.add(outcome)
    calls.ratio()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="of the run, such as batch.size=8")
    main(**vars(parser.parse_args()))
