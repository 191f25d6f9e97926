"""The machine's own counters, on the machine itself, and what is made of counters."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from runner.run import machine
from runner.run.machine import MachineCounters

BURN = f"{sys.executable} -c 'import time; end = time.time() + 1\nwhile time.time() < end: pass'"


def burn(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_work_of_this_process_is_its_own():
    before = MachineCounters.read()
    burn(0.5)
    load = before.until(MachineCounters.read())
    assert load.cpu_s == pytest.approx(0.5, rel=0.6)
    assert load.metrics["cpu_s"] == load.cpu_s


def test_work_of_another_process_is_others():
    """A shell that ends at once leaves its child to the system: it is none of ours."""
    before = MachineCounters.read()
    subprocess.run(["/bin/sh", "-c", f"{BURN} &"], check=True)
    time.sleep(1.5)
    load = before.until(MachineCounters.read())
    assert load.cpu_s < 0.5
    assert load.other_cpu_share is not None
    assert load.other_cpu_share * load.usable_cpus > 0.4, "of two seconds, about one CPU was taken"


@pytest.mark.parametrize("waits", [True, False])
def test_work_of_a_child_is_the_runs_own_before_and_after_it_ends(waits: bool):
    before = MachineCounters.read()
    child = subprocess.Popen(["/bin/sh", "-c", f"exec {BURN}"])
    time.sleep(0.8)
    if waits:
        child.wait()
    load = before.until(MachineCounters.read())
    child.wait()
    assert load.child_cpu_share * load.usable_cpus > 0.3
    assert load.metrics["child_cpu_share"] == load.child_cpu_share


COUNTERS = MachineCounters(
    wall_s=0.0, process_s=0.0, child_s=0.0, cpus=frozenset(range(8)), busy_s=0.0, steal_s=0.0, involuntary_switches=0,
    throttled_us=None, pressure_us=None, swapped_bytes=0,
)  # fmt: skip


def test_shares_are_of_the_cpus_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """10 s on 8 CPUs: 16 s of our own, 4 s of our child, 20 s of others. A quota of 2 leaves 6 CPUs to them."""
    monkeypatch.setattr(machine, "_CPU_QUOTA", tmp_path / "cpu.max")
    later = replace(COUNTERS, wall_s=10.0, process_s=16.0, child_s=4.0, busy_s=40.0, steal_s=-0.1)
    load = COUNTERS.until(later)
    assert (load.other_cpu_share, load.child_cpu_share, load.steal_share) == (0.25, 0.05, 0.0)
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    load = COUNTERS.until(later)
    assert (load.usable_cpus, load.other_cpu_share, load.child_cpu_share) == (2.0, 0.0, 0.2)
    crowded = COUNTERS.until(replace(later, busy_s=90.0))
    assert crowded.other_cpu_share == 0.5, "70 s of others, 60 s of them on CPUs beyond the quota"


def test_a_system_that_does_not_count_has_no_share():
    later = replace(COUNTERS, wall_s=10.0, process_s=16.0, busy_s=0.0, steal_s=None)
    assert COUNTERS.until(later).metrics == {"cpu_s": 16.0, "child_cpu_share": 0.0}
    short = replace(later, wall_s=0.01, process_s=0.01)
    assert COUNTERS.until(short).other_cpu_share == 0.0, "the counter has not ticked yet"
    assert COUNTERS.until(replace(later, busy_s=None)).other_cpu_share is None


def test_cpus_with_other_numbers_than_the_systems_list_are_not_counted(monkeypatch: pytest.MonkeyPatch):
    """Some containers list two CPUs as 0 and 1, whatever the affinity calls them."""
    monkeypatch.setattr(machine, "_affinity", lambda: frozenset({12}))
    monkeypatch.setattr(psutil, "cpu_times", lambda *, percpu: [1.0, 2.0])
    counters = MachineCounters.read()
    assert (counters.busy_s, counters.steal_s) == (None, None)
