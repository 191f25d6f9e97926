"""The machine's own counters, on the machine itself."""

import multiprocessing
import time

import pytest

from runner.run.machine import MachineCounters


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
    before = MachineCounters.read()
    other = multiprocessing.get_context("spawn").Process(target=burn, args=(1.0,))
    other.start()
    other.join()
    load = before.until(MachineCounters.read())
    assert load.cpu_s < 0.5
    assert load.other_cpu_share is not None
    assert load.other_cpu_share * load.usable_cpus > 0.4, "about one CPU was taken"
