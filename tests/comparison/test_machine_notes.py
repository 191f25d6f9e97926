"""Each condition under which a speed is not a run's own is said with its figure, and a quiet machine is not spoken of."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from runner.comparison.compare import compare_folders
from runner.comparison.present.headline import headline
from tests.comparison.helpers import Write, note_texts, sentences

QUIET = {"prompts_per_s": 1.0, "duration_s": 10.0, "latency_p50_s": 1.0}
BOUNDS = {
    "other_cpu_share": (0.1, 0.12, "Other processes took part of the CPUs", "12%"),
    "child_cpu_share": (0.1, 0.3, "the one that publishes to MLflow, took part of the CPUs", "30%"),
    "steal_share": (0.05, 0.06, "The hypervisor gave part of the CPUs' time to other machines", "6%"),
    "client_cpu_share": (0.7, 0.85, "The thread that sends and receives was busy itself", "85%"),
    "first_call_ratio": (1.5, 1.8, "The first call of these runs took longer than later calls of like size", "1.8 x"),
}
"""By metric: the largest value without a note, one above it, what the note says, and the figure."""
FACTS = {
    "throttled_s": (0.5, 2.0, "The control group's CPU quota held these runs back", "2.0 s over all threads"),
    "swapped_mb": (64, 80, "The machine swapped memory", "80 MiB"),
    "thermal_throttles": (0, 3, "CPU cores lowered their clock because of heat", "3 times"),
    "involuntary_switches": (2000, 4000, "Threads of these runs were taken off a CPU", "200 times a second and CPU"),
}
"""The same by figure of environment.json, of a run of 10 s on 2 CPUs."""


def noted(write_run: Write, metrics: Mapping[str, float], load: Mapping[str, float | None] | None = None) -> str:
    run = write_run("busy", sentences(2), metrics={**QUIET, **metrics})
    if load is not None:
        (run / "environment.json").write_text(json.dumps({"os": "Linux", "machine_load": load}))
    return note_texts(compare_folders([run]))


@pytest.mark.parametrize("name", list(BOUNDS))
def test_a_metric_above_its_bound_is_said_with_its_figure(name: str, write_run: Write):
    _, above, text, figure = BOUNDS[name]
    texts = noted(write_run, {name: above})
    assert text in texts
    assert f"busy ({figure})" in texts


@pytest.mark.parametrize("name", list(FACTS))
def test_a_recorded_figure_above_its_bound_is_said(name: str, write_run: Write):
    _, above, text, figure = FACTS[name]
    texts = noted(write_run, {}, {"usable_cpus": 2.0, name: above})
    assert text in texts
    assert f"busy ({figure})" in texts


def test_what_held_a_gpus_clock_down_is_said_with_its_reason(write_run: Write):
    reasons = {"sw_power_cap_s": 4.0, "hw_thermal_slowdown_s": 1.0}
    run = write_run("hot", sentences(2), metrics=QUIET)
    (run / "environment.json").write_text(json.dumps({"machine_load": {"gpu": {"clock_mhz": 900.0, **reasons}}}))
    texts = note_texts(compare_folders([run]))
    assert "The GPU's clock was held down while these runs were measured: hot (4.0 s, sw_power_cap)" in texts


def test_a_quiet_machine_is_not_spoken_of(write_run: Write):
    metrics = {name: bound for name, (bound, *_) in BOUNDS.items()}
    load = {name: bound for name, (bound, *_) in FACTS.items()} | {"usable_cpus": 2.0, "clock_mhz": None}
    assert noted(write_run, metrics, load) == "One run: there is nothing to compare it with"


def test_an_older_record_without_the_figures_has_no_note(write_run: Write):
    assert noted(write_run, {}, {}) == "One run: there is nothing to compare it with"


def test_a_slow_first_call_that_cost_less_than_a_hundredth_of_the_run_is_not_spoken_of(write_run: Write):
    """0.8 x 0.1 s more in 10 s are 0.8 %."""
    assert "first call" not in noted(write_run, {"first_call_ratio": 1.8, "latency_p50_s": 0.1})


def test_counters_of_less_than_a_second_prove_nothing(write_run: Write):
    assert "Other processes" not in noted(write_run, {"other_cpu_share": 0.9, "duration_s": 0.9})


def test_counters_of_a_resumed_run_are_over_the_time_of_its_last_process(write_run: Write):
    """2 s of quota in the last process's 10 s are 20 %; over the whole run's 100 s they would be 2 %."""
    texts = noted(write_run, {"duration_s": 100.0}, {"usable_cpus": 2.0, "wall_s": 10.0, "throttled_s": 2.0})
    assert "The control group's CPU quota held these runs back: busy (2.0 s over all threads)" in texts


def test_a_last_process_of_less_than_a_second_proves_nothing(write_run: Write):
    assert "Other processes" not in noted(write_run, {"other_cpu_share": 0.9}, {"wall_s": 0.5})


def test_unlike_conditions_are_said_and_named_in_the_headline(write_run: Write):
    shares = {"busy": (1, 0.48), "quiet": (4, 0.02)}
    runs = [
        write_run(name, sentences(2), f"batch.size={size}", metrics={**QUIET, "other_cpu_share": share})
        for name, (size, share) in shares.items()
    ]
    comparison = compare_folders(runs)
    texts = note_texts(comparison)
    assert (
        "Other processes took part of the CPUs while these runs were measured, so their speed may be too low: busy (48%)"
        in texts
    )
    assert (
        "The runs saw unlike conditions: other processes took 2% of the CPUs during one run and 48% during another"
        in texts
    )
    assert "quiet (" not in texts
    assert (headline(comparison) or "").endswith("; other processes took up to 48% of the CPUs meanwhile")


def test_of_many_busy_runs_the_busiest_are_named(write_run: Write):
    runs = [
        write_run(f"r{n}", sentences(2), metrics={"duration_s": 5.0, "other_cpu_share": 0.2 + n / 100})
        for n in range(9)
    ]
    texts = note_texts(compare_folders(runs))
    assert texts.count("Other processes") == 1
    assert "r8 (28%), r7 (27%), r6 (26%), r5 (25%), r4 (24%), r3 (23%) and 3 more" in texts


def environment(run: Path, os: str = "Linux 6", model: str = "Xeon", **settings: str) -> Path:
    (run / "environment.json").write_text(json.dumps({"os": os, "cpu": {"model": model}, "settings": settings}))
    return run


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"os": "Linux 7"}, "os Linux 7 (reference: Linux 6)"),
        ({"model": "EPYC"}, "cpu.model EPYC (reference: Xeon)"),
        ({"OMP_NUM_THREADS": "1"}, "settings.OMP_NUM_THREADS 1 (reference: 2)"),
    ],
)
def test_another_machine_or_other_threads_make_another_configuration(
    changed: dict[str, str], text: str, write_run: Write
):
    """The repeat on another machine is no repeat: it is a row of its own, and the difference is said."""
    one = environment(write_run("one", sentences(2), "batch.size=1", metrics=QUIET), OMP_NUM_THREADS="2")
    more = [write_run(f"more-{n}", sentences(2), "batch.size=4", f"repeat={n + 1}", metrics=QUIET) for n in range(2)]
    environment(more[0], OMP_NUM_THREADS="2")
    environment(more[1], **{"OMP_NUM_THREADS": "2", **changed})
    comparison = compare_folders([one, *more])
    assert len(comparison.rows) == 3
    assert text in note_texts(compare_folders([one, more[1]], reference=one))
