"""A command of the runner in a process of its own, with its wall seconds and its peak memory."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import psutil


class Watched:
    """`python -m` with these arguments, as a user would start it; its standard output is thrown away."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._start, self.peak_mb = time.perf_counter(), 0.0
        self.process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL)
        self._memory = psutil.Process(self.process.pid)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._start

    def watch(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Sample the memory until the condition holds or the process has ended."""
        while self.process.poll() is None and not until():
            try:
                self.peak_mb = max(self.peak_mb, self._memory.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.02)


def measured(arguments: Sequence[str]) -> tuple[float, float]:
    """Return wall seconds and peak MiB of a whole command that succeeds."""
    command = Watched(arguments)
    command.watch()
    assert command.process.wait() == 0
    return command.seconds, command.peak_mb
