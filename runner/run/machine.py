"""How busy the machine was with other work while a run was measured: counters of the operating system, read twice."""

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_CPU_STAT = Path("/sys/fs/cgroup/cpu.stat")
_CPU_PRESSURE = Path("/proc/pressure/cpu")
_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLoad:
    """What the machine did during a run. A counter that the system does not keep is None.

    Attributes:
        wall_s: the seconds between the two readings.
        usable_cpus: the CPUs that this process may use: its affinity, or less by its control group's quota.
        cpu_s: CPU seconds of this process, all threads.
        other_cpu_share: the share of the usable CPUs' time that other processes took, 0 to 1. Under a quota, what they
            took beyond the CPUs that the quota leaves to them.
        child_cpu_share: the share that processes which this one started took, such as the one that publishes to MLflow.
        steal_share: the share that the hypervisor gave to other machines, 0 to 1.
        involuntary_switches: how often a thread of this process was taken off a CPU that it still wanted.
        throttled_s: how long the control group's quota held threads back, summed over threads that ran at once.
        pressure_share: the share of the time in which some task waited for a CPU (Linux pressure stall information).
        swapped_mb: MiB that the machine swapped in or out.
        thermal_throttles: how often a core lowered its clock because of heat (Intel CPUs on Linux).
        clock_mhz: the mean clock of the CPUs at the end, as the system has it.
    """

    wall_s: float
    usable_cpus: float
    cpu_s: float
    other_cpu_share: float | None
    child_cpu_share: float
    steal_share: float | None
    involuntary_switches: int
    throttled_s: float | None
    pressure_share: float | None
    swapped_mb: float
    thermal_throttles: int | None
    clock_mhz: float | None

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the contract; one that does not exist on this system is absent."""
        named = {
            "cpu_s": self.cpu_s,
            "other_cpu_share": self.other_cpu_share,
            "child_cpu_share": self.child_cpu_share,
            "steal_share": self.steal_share,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineCounters:
    """The counters at one moment; the difference of two moments is a MachineLoad."""

    wall_s: float
    process_s: float
    child_s: float
    cpus: frozenset[int]
    busy_s: float | None
    steal_s: float | None
    involuntary_switches: int
    throttled_us: int | None
    pressure_us: int | None
    swapped_bytes: int
    thermal_throttles: int | None = None
    clock_mhz: float | None = None

    @classmethod
    def read(cls) -> Self:
        """Read them now; takes milliseconds, for children are sought among all processes."""
        cpus = _affinity()
        times = _cpu_times(cpus)
        swap = psutil.swap_memory()
        return cls(
            wall_s=time.perf_counter(),
            process_s=time.process_time(),
            child_s=_child_s(),
            cpus=cpus,
            busy_s=sum(sum(getattr(cpu, name, 0.0) for name in _BUSY) for cpu in times) if times else None,
            steal_s=sum(cpu.steal for cpu in times) if times and hasattr(times[0], "steal") else None,
            involuntary_switches=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
            throttled_us=_field(_CPU_STAT, "throttled_usec"),
            pressure_us=_field(_CPU_PRESSURE, "total"),
            swapped_bytes=swap.sin + swap.sout,
            thermal_throttles=_thermal_throttles(),
            clock_mhz=_clock_mhz(),
        )

    def until(self, later: "MachineCounters") -> MachineLoad:
        """Return what happened between these counters and later ones."""
        wall_s = max(later.wall_s - self.wall_s, 1e-9)
        cpu_s, child_s = later.process_s - self.process_s, max(0.0, later.child_s - self.child_s)
        usable = _usable_cpus(self.cpus)
        busy_s, steal_s = (self._counted(later, name) for name in ("busy_s", "steal_s"))
        spare_s = wall_s * (len(self.cpus) - usable)
        return MachineLoad(
            wall_s=wall_s,
            usable_cpus=usable,
            cpu_s=cpu_s,
            other_cpu_share=_share(busy_s - cpu_s - child_s - spare_s, wall_s * usable)
            if busy_s is not None and busy_s >= _MIN_COUNTED * cpu_s - _TICKS_S
            else None,
            child_cpu_share=min(1.0, child_s / (wall_s * usable)),
            steal_share=_share(steal_s, wall_s * len(self.cpus)),
            involuntary_switches=later.involuntary_switches - self.involuntary_switches,
            throttled_s=_seconds(self.throttled_us, later.throttled_us),
            pressure_share=_share(_seconds(self.pressure_us, later.pressure_us), wall_s),
            swapped_mb=(later.swapped_bytes - self.swapped_bytes) / 2**20,
            thermal_throttles=_difference(self.thermal_throttles, later.thermal_throttles),
            clock_mhz=later.clock_mhz,
        )

    def _counted(self, later: "MachineCounters", name: str) -> float | None:
        """Return what a counter of the CPUs has grown by; None where the affinity has changed: the CPUs are others."""
        before, after = getattr(self, name), getattr(later, name)
        return None if before is None or after is None or self.cpus != later.cpus else after - before


_MIN_COUNTED = 0.5
"""Share of this process's own seconds that the system's counter must have at least: some sandboxes do not count."""
_TICKS_S = 0.1
"""The counter has steps of 10 ms: over less than this it may not have moved."""
_BUSY = ("user", "nice", "system", "irq", "softirq")
"""Fields of /proc/stat in which a CPU works; `user` includes the time of guests."""


def _affinity() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _cpu_times(cpus: frozenset[int]) -> list[Any]:
    """Return the times of these CPUs; none where the system's list has other numbers, as in some containers."""
    times = psutil.cpu_times(percpu=True)
    if len(times) == len(cpus):
        return list(times)
    return [times[number] for number in cpus] if max(cpus) < len(times) else []


def _child_s() -> float:
    """Return the CPU seconds of the processes that this one started, and of those that these started."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            times = child.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _usable_cpus(cpus: frozenset[int]) -> float:
    """Return the CPUs of the affinity, or fewer where a control group has a quota (cgroup v2, cpu.max)."""
    try:
        quota, period = _CPU_QUOTA.read_text(encoding="ascii").split()
        return min(float(len(cpus)), int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or no quota: "max"
        return float(len(cpus))


def _field(path: Path, name: str) -> int | None:
    """Return a counter from a file of `name value` or `name=value` words; the first line that has it counts."""
    try:
        words = path.read_text(encoding="ascii").replace("=", " ").split()
        return int(words[words.index(name) + 1])
    except (OSError, ValueError, IndexError):
        return None


def _thermal_throttles() -> int | None:
    """Return how often any core lowered its clock because of heat; None where the system does not count."""
    paths = _CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    counts = [int(path.read_text(encoding="ascii")) for path in paths]
    return sum(counts) if counts else None


def _clock_mhz() -> float | None:
    """Return the mean clock of the CPUs; None where the system does not have it."""
    clock = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return clock.current if clock and clock.current else None


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _seconds(before_us: int | None, after_us: int | None) -> float | None:
    elapsed_us = _difference(before_us, after_us)
    return None if elapsed_us is None else elapsed_us / 1e6


def _share(seconds: float | None, wall_s: float) -> float | None:
    return None if seconds is None else min(1.0, max(0.0, seconds / wall_s))
