"""A million prompts through provider=echo, killed half-way and resumed: seconds to the first new outcome, and memory.

Both parts are processes of their own, as a user would start them. The second is a whole `python -m runner.resume`.
"""

import argparse
import json
import signal
import tempfile
from pathlib import Path

from benchmarks.echo_scale import write_prompts
from benchmarks.watched import Watched
from runner.record.folder import OUTCOMES, SUMMARY


def main(*, prompts: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, path = Path(scratch) / "run", write_prompts(Path(scratch) / "prompts.jsonl", prompts)
        outcomes = folder / OUTCOMES
        overrides = ["provider=echo", "prompts=file", f"prompts.path={path}", f"hydra.run.dir={folder}"]
        overrides += ["batch.size=64", f"tracking.uri=sqlite:///{scratch}/mlflow.db"]
        first = Watched(["runner", *overrides])
        half = path.stat().st_size * 2  # the line of an outcome is about four times as long as that of its prompt
        first.watch(until=lambda: _size(outcomes) > half)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        kept = _lines(outcomes)
        print(f"killed after {first.seconds:.0f} s with {kept:,} of {prompts:,} outcomes; peak {first.peak_mb:.0f} MiB")
        before, second = _size(outcomes), Watched(["runner.resume", str(folder)])
        second.watch(until=lambda: _size(outcomes) > before)
        print(f"resumed: first new outcome after {second.seconds:.1f} s")
        second.watch()
        assert second.process.wait() == 0
        print(f"finished after {second.seconds:.0f} s; peak {second.peak_mb:.0f} MiB")
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        assert summary["metrics"]["completed_prompts"] == prompts == _lines(outcomes)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    main(**vars(parser.parse_args()))
