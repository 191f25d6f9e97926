"""The machine's own counters, on the machine itself, and what is made of counters."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from runner import app
from runner.comparison.compare import compare_folders
from runner.run import machine
from runner.run.gpu import gpu_load, read_gpu
from runner.run.machine import MachineCounters
from tests.comparison.helpers import note_texts
from tests.conftest import Compose
from tests.factories import prompts_file, summary_of
from tests.servers.openai_server import OpenAIServer

BURN = f"{sys.executable} -c 'import time; end = time.time() + 1\nwhile time.time() < end: pass'"


@contextmanager
def busy_cpus() -> Iterator[None]:
    """Keep every CPU busy. A shell that ends at once leaves its children to the system: they are none of ours."""
    burn = BURN.replace("+ 1", "+ 60")
    shell = f"for n in $(seq {len(os.sched_getaffinity(0))}); do {burn} >/dev/null 2>&1 & echo $!; done"
    started = subprocess.run(["/bin/sh", "-c", shell], stdout=subprocess.PIPE, check=True, text=True)
    try:
        yield
    finally:
        for pid in started.stdout.split():
            os.kill(int(pid), signal.SIGKILL)


def test_work_of_this_process_is_its_own():
    before = MachineCounters.read()
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    load = before.until(MachineCounters.read())
    assert load.cpu_s == pytest.approx(0.5, rel=0.2)
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


@pytest.mark.parametrize("ends", [True, False])
def test_work_of_a_child_is_the_runs_own_before_and_after_it_ends(ends: bool):
    """The child works for half a second of CPU time, then waits for its standard input to end."""
    work = "import sys, time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\nsys.stdin.read()"
    before = MachineCounters.read()
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        if ends:
            child.communicate()
        after = MachineCounters.read()
        child.communicate()
    load = before.until(after)
    child_s = load.child_cpu_share * load.usable_cpus * (after.wall_s - before.wall_s)
    assert child_s == pytest.approx(0.5, abs=0.2)
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


def test_heat_is_counted_where_the_system_counts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(machine, "_CPUS", tmp_path)
    assert MachineCounters.read().thermal_throttles is None
    for cpu, count in enumerate((3, 4)):
        folder = tmp_path / f"cpu{cpu}" / "thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(f"{count}\n")
    before = MachineCounters.read()
    (tmp_path / "cpu1" / "thermal_throttle" / "core_throttle_count").write_text("9\n")
    assert before.until(MachineCounters.read()).thermal_throttles == 5


def test_a_load_from_another_process_during_one_job_is_said(config: Compose, tmp_path: Path):
    """Echo sleeps for 1.2 s, and a process for each CPU works meanwhile: the counters need a second."""
    jobs = ("provider=echo", "provider.latency_s=0.12", "batch.mode=static", "batch.size=1", "batch.warmup=0")
    with busy_cpus():
        app.run(config(*jobs, *prompts_file(tmp_path, 10)), tmp_path / "busy")
    assert summary_of(tmp_path / "busy").metrics["other_cpu_share"] > 0.3
    load = json.loads((tmp_path / "busy" / "environment.json").read_text())["machine_load"]
    assert load["usable_cpus"] == len(os.sched_getaffinity(0))
    texts = note_texts(compare_folders([tmp_path / "busy"]))
    assert "Other processes took part of the CPUs while these runs were measured" in texts
    assert "busy (" in texts


@pytest.mark.parametrize("provider", ["hosted", "local"])
def test_only_a_hosted_run_has_the_share_of_the_thread_that_sends(
    provider: str, config: Compose, hosted: Compose, tmp_path: Path
):
    with OpenAIServer() as server:
        compose = hosted(server, *prompts_file(tmp_path, 5))
        local = config("provider=echo", *prompts_file(tmp_path, 5))
        app.run(compose if provider == "hosted" else local, tmp_path / "r")
    metrics = summary_of(tmp_path / "r").metrics
    assert ("client_cpu_share" in metrics) == (provider == "hosted")
    assert 0 < metrics.get("client_cpu_share", 0.5) <= 1


def test_outcomes_are_read_in_one_pass_at_the_end_of_a_run_and_in_one_by_a_comparison(config: Compose, tmp_path: Path):
    """The end of the file, where the last segment's number stands, is read besides."""
    opened: list[str] = []

    def note_opened(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(str(tmp_path)) and arguments[1] == "r":
            opened.append(Path(str(arguments[0])).name)

    sys.addaudithook(note_opened)
    runs = [tmp_path / "one", tmp_path / "two"]
    for size, run in enumerate(runs, 1):
        app.run(config("provider=echo", f"batch.size={size}", *prompts_file(tmp_path, 5)), run)
    assert opened.count("outcomes.jsonl") == 2 * 2
    opened.clear()
    compare_folders(runs)
    assert opened.count("outcomes.jsonl") == 2 * 2


def test_what_held_a_gpus_clock_down_is_the_difference_of_the_counters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A program in the place of nvidia-smi, which prints a line of values in the order of the fields that it is asked for."""
    program, line = tmp_path / "nvidia-smi", tmp_path / "line"
    program.write_text(f'#!/bin/sh\n[ "$1" = --id=GPU-b ] && /bin/cat {line}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    line.write_text("1980, 1980, 40, 1000000, 0, 0, 0\n")
    before = read_gpu("cuda:1")
    line.write_text("1200, 1980, 71, 5500000, 250000, 0, 0\n")
    assert gpu_load(before, read_gpu("cuda:1")) == {
        "clock_mhz": 1200, "max_clock_mhz": 1980, "temperature_c": 71, "sw_power_cap_s": 4.5,
        "sw_thermal_slowdown_s": 0.25, "hw_thermal_slowdown_s": 0, "hw_power_brake_slowdown_s": 0,
    }  # fmt: skip
    line.write_text('Field "clocks_event_reasons_counters.sw_power_cap" is not a valid field to query.\n')
    assert read_gpu("cuda:1") is None, "an older driver"
    assert read_gpu("cuda") is None, "the other GPU does not answer"
    assert read_gpu("cpu") is None
    assert gpu_load(before, None) == {}
