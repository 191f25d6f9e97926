"""A million prompts through provider=echo, killed half-way and resumed: seconds to the first new outcome, and memory.

Both parts are processes of their own, as a user would start them. The second is a whole `python -m runner.resume`.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.echo_scale import write_prompts


def main(*, prompts: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, path = Path(scratch) / "run", write_prompts(Path(scratch) / "prompts.jsonl", prompts)
        outcomes = folder / "outcomes.jsonl"
        overrides = ["provider=echo", "prompts=file", f"prompts.path={path}", f"hydra.run.dir={folder}"]
        overrides += ["batch.size=64", f"tracking.uri=sqlite:///{scratch}/mlflow.db"]
        first = _Watched([sys.executable, "-m", "runner", *overrides])
        half = path.stat().st_size * 2  # a line of outcome is some four times its prompt's
        first.watch(until=lambda: _size(outcomes) > half)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        kept = _lines(outcomes)
        print(f"killed after {first.seconds:.0f} s with {kept:,} of {prompts:,} outcomes; peak {first.peak_mb:.0f} MiB")
        before, second = _size(outcomes), _Watched([sys.executable, "-m", "runner.resume", str(folder)])
        second.watch(until=lambda: _size(outcomes) > before)
        print(f"resumed: first new outcome after {second.seconds:.1f} s")
        second.watch(until=lambda: False)
        assert second.process.wait() == 0
        print(f"finished after {second.seconds:.0f} s; peak {second.peak_mb:.0f} MiB")
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        assert summary["metrics"]["completed_prompts"] == prompts == _lines(outcomes)


class _Watched:
    """A process with its wall seconds and its peak resident size."""

    def __init__(self, command: list[str]) -> None:
        self._start, self.peak_mb = time.perf_counter(), 0.0
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._memory = psutil.Process(self.process.pid)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def watch(self, *, until: Callable[[], bool]) -> None:
        """Look at the memory until the condition holds or the process has ended."""
        while self.process.poll() is None and not until():
            self.peak_mb = max(self.peak_mb, self._memory.memory_info().rss / 2**20)
            time.sleep(0.02)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    main(**vars(parser.parse_args()))
