"""How a run's answers were served: overlap in time, and the systems of a service."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from runner.comparison.compare import compare_folders
from runner.comparison.present.json import as_data
from runner.comparison.served import ServedCounter, count_overlapping
from runner.record.folder import RunFolder
from runner.types import Completion
from tests.comparison.helpers import Write, note_texts, sentences
from tests.factories import completion, timing


@pytest.mark.parametrize(
    ("intervals", "overlapping"),
    [
        ([(0, 1), (0.5, 2), (3, 4), (4, 5)], 2),  # one that begins where another ends comes after it
        ([(0, 10), (1, 2), (3, 4)], 3),  # the second and the third are each within the first
        ([(0, 1)], 0),
        ([], 0),
    ],
)
def test_intervals_that_have_a_time_in_common_overlap(intervals: list[tuple[float, float]], overlapping: int):
    assert count_overlapping([start for start, _ in intervals], [end for _, end in intervals]) == overlapping


def test_only_the_attempt_that_was_answered_took_the_services_time():
    counter = ServedCounter()
    counter.add(completion("retried", when=replace(timing(0, 10), last_attempt_latency_s=1.0)))  # 9 to 10
    counter.add(completion("other", when=timing(2, 3)))  # 2 to 5
    assert counter.served().overlapping == 0
    counter.add(completion("third", when=timing(4, 1)))  # 4 to 5
    assert counter.served().overlapping == 2


def answers(seconds_apart: float) -> list[Completion]:
    return [completion(str(n), text=f"text {n}", when=timing(n * seconds_apart, 1.0)) for n in range(10)]


def test_requests_that_left_one_after_another_are_no_evidence_about_batching(write_run: Write):
    asked = ("provider=openai", "batch.mode=concurrent")
    one, apart, together = (
        write_run("one", answers(2.0), *asked, "batch.size=1"),
        write_run("apart", answers(2.0), *asked, "batch.size=4"),
        write_run("together", answers(0.5), *asked, "batch.size=8"),
    )
    comparison = compare_folders([one, apart, together])
    notes = note_texts(comparison)
    assert (
        "Run apart: only 0% of its 10 prompts were generated while another was: its texts and its speed are no" in notes
    )
    assert "Run together: only" not in notes
    assert "Run one: only" not in notes, "one at a time is what was asked"
    shares = [run["served"]["overlapping_share"] for run in as_data(comparison)["runs"]]
    assert shares == [0, 0, 1]


def test_requests_of_runs_whose_texts_are_not_compared_are_counted_too(write_run: Write):
    """Sampled with another seed: no text is compared, and the speed is."""
    asked = ("provider=openai", "batch.mode=concurrent", "batch.size=4", "generation.temperature=1")
    runs = [write_run(f"seed-{seed}", answers(2.0), *asked, f"seed={seed}") for seed in (1, 2)]
    for folders in (runs, runs[:1]):
        notes = note_texts(compare_folders(folders))
        for run in folders:
            assert f"Run {run.name}: only 0% of its 10 prompts were generated while another was" in notes


def served_by(*fingerprints: str) -> Sequence[Completion]:
    names = [fingerprints[n % len(fingerprints)] for n in range(4)]
    return [replace(completion(str(n), text="x"), system_fingerprint=name) for n, name in enumerate(names)]


def test_runs_that_other_systems_answered_differ_in_that(write_run: Write):
    asked = ("provider=openai", "batch.mode=concurrent")
    runs = [
        write_run("a", served_by("fp_1"), *asked, "batch.size=1"),
        write_run("b", served_by("fp_2", "fp_1"), *asked),
        write_run("c", served_by("fp_1"), *asked, "batch.size=2"),
    ]
    notes = note_texts(compare_folders(runs))
    assert "run b differs from run a: provider.system_fingerprint fp_1, fp_2 (reference: fp_1)" in notes
    assert "run c differs" not in notes


def test_runs_that_other_systems_answered_are_no_repeats_of_each_other(write_run: Write):
    asked = ("provider=openai", "batch.mode=concurrent")
    runs = [write_run(f"r{n}", sentences(2), *asked, f"repeat={n}") for n in (1, 2, 3)]
    for run, name in zip(runs, ("fp_1", "fp_2", "fp_1"), strict=True):
        RunFolder(run).write_environment({"provider": {"system_fingerprint": name}})
    assert [row.label for row in compare_folders(runs).rows] == ["r1,r3", "r2"]


def test_other_thread_settings_are_another_configuration(write_run: Write):
    runs = [write_run(f"r{n}", sentences(2), f"repeat={n}") for n in (1, 2)]
    for run, settings in zip(runs, ({}, {"OMP_NUM_THREADS": "1"}), strict=True):
        RunFolder(run).write_environment({"os": "Linux", "cpu": {"model": "A"}, "settings": settings})
    comparison = compare_folders(runs)
    assert len(comparison.rows) == 2
    assert "settings.OMP_NUM_THREADS 1 (reference: null)" in note_texts(comparison)


def test_a_run_that_was_resumed_elsewhere_is_two_environments(write_run: Write):
    runs = [write_run("a", sentences(2), "batch.size=1"), write_run("b", sentences(2))]
    for run in runs:
        RunFolder(run).write_environment({"os": "Linux", "cpu": {"model": "A"}})
    RunFolder(runs[1]).keep_environment(0)
    RunFolder(runs[1]).write_environment({"os": "Linux", "cpu": {"model": "B"}})
    comparison = compare_folders(runs)
    sentence = "was resumed in another environment, so its texts and its speed are of two: cpu.model: A before, B now"
    assert f"Run b {sentence}" in note_texts(comparison)
    assert "Run a was resumed" not in note_texts(comparison)
    assert as_data(comparison)["runs"][1]["environment_changes"] == ["cpu.model: A before, B now"]
