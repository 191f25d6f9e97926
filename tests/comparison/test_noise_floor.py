"""The reference's own repeats stand beside each run's match."""

import pytest

from runner.comparison.compare import compare_folders
from runner.comparison.present.json import as_data
from runner.comparison.present.tables import text_tables
from runner.record.folder import RunFolder
from tests.comparison.helpers import Texts, Write, note_texts
from tests.factories import completion


def changed(count: int) -> Texts:
    """Twenty texts, the first of them changed."""
    return {str(n): f"text {n}" + (" changed" if n < count else "") for n in range(20)}


def test_a_run_that_matches_less_often_than_the_reference_itself_is_told_apart(write_run: Write):
    one = write_run("one", changed(0), "batch.size=1", "repeat=1")
    again = write_run("again", changed(1), "batch.size=1", "repeat=2")
    worse = write_run("worse", changed(10), "batch.size=4", "repeat=1")
    alike = write_run("alike", changed(2), "batch.size=8", "repeat=1")
    comparison = compare_folders([one, again, worse, alike])
    floors = {entry.pair.run.label: entry.noise_floor for entry in comparison.compared}
    assert floors["again"] is None, "it is the floor"
    # Prompts 1 to 9 match in the repeat only, none in the run only: 2 x 0.5^9. Prompt 1 alone: 1. Holm doubles the first.
    floor = floors["worse"]
    assert floor is not None
    assert (floor.repeat, floor.repeat_matches, floor.run_matches, floor.prompts) == ("again", 19, 10, 20)
    assert (floor.p_value, floor.corrected_p) == pytest.approx((2 * 0.5**9, 4 * 0.5**9))
    assert floors["alike"] is not None
    assert floors["alike"].corrected_p == 1
    assert (
        "The reference, run one, repeated, matches itself in 95.0% of 20 prompts; fewer match in run worse (50.0% of 20, "
        "p = 0.0078); run alike cannot be told apart from that (exact McNemar test, corrected for 2 runs)"
    ) in note_texts(comparison)
    (table,) = text_tables(comparison, width=0)
    assert [row[table.columns.index("floor")] for row in table.rows] == ["-", "95.0% (76-99)", "95.0% (76-99)"]
    data = as_data(comparison)["compared"][1]["noise_floor"]
    assert (data["repeat_match_ratio"], data["corrected_p_value"]) == (0.95, pytest.approx(4 * 0.5**9))


def test_the_repeat_of_a_runs_own_block_is_its_floor(write_run: Write):
    runs = [write_run(f"one-{n}", changed(n), "batch.size=1", f"repeat={n}") for n in (1, 2, 3)]
    runs += [write_run(f"four-{n}", changed(5), "batch.size=4", f"repeat={n}") for n in (1, 2, 3)]
    floors = {entry.pair.run.label: entry.noise_floor for entry in compare_folders(runs).compared}
    assert {label: floor and floor.repeat for label, floor in floors.items()} == {
        "one-2": None, "one-3": None, "four-1": "one-2", "four-2": "one-2", "four-3": "one-3",
    }  # fmt: skip


def test_a_reference_that_repeats_itself_like_its_runs_needs_no_sentence(write_run: Write):
    runs = [write_run(f"r{n}", changed(0), f"batch.size={size}", f"repeat={n}") for n, size in ((1, 1), (2, 1), (3, 4))]
    comparison = compare_folders(runs)
    assert comparison.compared[1].noise_floor is not None
    assert "itself" not in note_texts(comparison)


@pytest.mark.parametrize(
    ("asked", "environment", "cause"),
    [
        (("provider=openai", "batch.mode=concurrent"), {}, "a service generated its texts"),
        (("provider=transformers", "model.id=m"), {"provider": {"device": "cuda:0"}}, r"it ran on a GPU (cuda:0)"),
        (("generation.temperature=0.5",), {}, "its texts are sampled"),
        (("provider=transformers", "model.id=m"), {"provider": {"device": "cpu"}}, None),
        ((), {}, None),
    ],
)
def test_a_reference_that_can_vary_by_itself_and_was_not_repeated_is_named(
    asked: tuple[str, ...], environment: dict[str, object], cause: str | None, write_run: Write
):
    runs = [write_run("one", changed(0), *asked, "batch.size=1"), write_run("four", changed(3), *asked, "batch.size=4")]
    for run in runs:
        RunFolder(run).write_environment(environment)
    notes = note_texts(compare_folders(runs))
    assert ("was not repeated" in notes) == (cause is not None)
    assert cause is None or f"can vary by themselves, for {cause}: how many of the differences" in notes
    runs.append(write_run("again", changed(0), *asked, "batch.size=1", "repeat=2"))
    RunFolder(runs[-1]).write_environment(environment)
    assert "repeat=3 shows it" not in note_texts(compare_folders(runs)), "it was repeated"


def test_repeats_of_a_reference_on_a_gpu_and_another_model_are_not_differences_of_a_batch(write_run: Write):
    """The repeats are the noise itself. What another model answers is not the batch's doing, repeated or not."""
    asked = ("provider=transformers", "batch.size=1")
    runs = [write_run(f"r{n}", changed(n), *asked, "model.id=m", f"repeat={n + 1}") for n in range(3)]
    other = write_run("other", changed(9), *asked, "model.id=n")
    for run in (*runs, other):
        RunFolder(run).write_environment({"provider": {"device": "cuda:0"}})
    for folders in (runs, [runs[0], other]):
        assert "was not repeated" not in note_texts(compare_folders(folders))


def test_repeats_of_one_configuration_are_compared_with_the_first(write_run: Write):
    runs = [write_run(f"r{n}", changed(n), f"repeat={n + 1}") for n in range(3)]
    matches = {entry.pair.run.label: entry.exact_match_ratio for entry in compare_folders(runs).compared}
    assert matches == {"r1": 0.95, "r2": 0.9}


def test_several_answers_to_one_prompt_have_no_order(write_run: Write):
    asked = ("generation.n=3", "generation.temperature=1")
    first = [completion("p", text=text, choice=choice) for choice, text in enumerate("abc")]
    second = [completion("p", text=text, choice=choice) for choice, text in enumerate("cax")]
    comparison = compare_folders([write_run("a", first, *asked, "batch.size=1"), write_run("b", second, *asked)])
    (compared,) = comparison.compared
    assert compared.divergence is not None
    assert (compared.divergence.compared, compared.divergence.equal) == (3, 2)
    ((example),) = compared.divergence.examples
    assert (example.reference, example.text) == ("b", "x")
