"""Where answers part: from ids where they are on record, with the pairs that never part taken into account."""

import json
from pathlib import Path

import pytest

from runner.comparison.compare import compare_folders
from runner.comparison.first_difference import Partings, first_difference_stats
from runner.comparison.present.json import as_data
from runner.comparison.present.tables import text_tables
from tests.comparison.helpers import Write, note_texts, only_divergence
from tests.factories import completion, with_ids


def test_an_answer_that_ends_before_it_parts_says_that_it_had_not_parted_until_then():
    # Tokens compared: 3 and 6 (parted), 3 and 10 (not). After 3: 1 of 4 has parted, 3/4 are left. The answer of 3
    # tokens is then out of sight. After 6: 1 of the 2 that are left, 3/4 x 1/2 = 3/8.
    stats = first_difference_stats([2, 5], [3, 10])
    assert stats is not None
    assert (stats.p25, stats.median, stats.p75) == (2, 5, None), "and not 3.5, the median of those that part"
    assert (stats.at_start, stats.never) == (0, 2)


def test_where_more_than_half_never_part_there_is_no_median(write_run: Write):
    stats = first_difference_stats([0], [5, 5, 5])
    assert stats is not None
    assert stats.median is None
    texts = {str(n): "one two three four five" for n in range(4)}
    runs = [write_run("a", texts, "batch.size=1"), write_run("b", texts | {"0": "zero two"})]
    comparison = compare_folders(runs)
    (table,) = text_tables(comparison)
    assert table.rows[0][table.columns.index("1st token")] == "never"
    first = as_data(comparison)["compared"][0]["texts"]["first_differing_token"]
    assert "median" not in first
    assert first["never"] == 3


def test_divergences_are_counted_per_token_compared_with_garwoods_interval():
    # 2 divergences in 3 + 6 + 3 + 10 = 22 tokens. Garwood 1936 for a count of 2: 0.2422 to 7.2247.
    rate = Partings(unit="token", source="ids", positions=[2, 5], starts=[None, None], lengths=[3, 10]).rate
    assert rate["divergences_per_1000_tokens"] == pytest.approx(2 / 22 * 1000)
    assert rate["divergences_per_1000_tokens_low"] == pytest.approx(0.2422 / 22 * 1000, rel=1e-3)
    assert rate["divergences_per_1000_tokens_high"] == pytest.approx(7.2247 / 22 * 1000, rel=1e-4)
    assert not Partings(unit="word", source="text", positions=[2], starts=[None], lengths=[]).rate, "of words"


def test_the_rate_is_a_metric_of_the_compared_run_and_zero_where_nothing_parts(write_run: Write):
    outcomes = [with_ids(completion(str(n), text="same"), *range(25)) for n in range(4)]
    one, two = write_run("a", outcomes, "batch.size=1"), write_run("b", outcomes)
    added = compare_folders([one, two]).metrics[two]
    assert added["divergences_per_1000_tokens"] == 0
    assert added["divergences_per_1000_tokens_high"] == pytest.approx(36.889, rel=1e-4)  # 3.6889 for a count of 0


def test_the_first_token_that_differs_is_that_of_the_record_and_no_tokenizer_is_loaded(write_run: Write):
    """The echo's tokens are words: cut from its text, the answers would part at token 2."""
    reference, run = completion("p", text="a b c"), completion("p", text="a b d")
    one = write_run(
        "a", [with_ids(reference, 7, 8, 8, 8, 5, 2)], "provider=transformers", "model.id=none", "batch.size=1"
    )
    two = write_run("b", [with_ids(run, 7, 8, 8, 8, 6, 2)], "provider=transformers", "model.id=none", "batch.size=4")
    comparison = compare_folders([one, two])
    divergence = only_divergence(comparison)
    assert (divergence.unit, divergence.source) == ("token", "ids"), "there is no such model, whose tokenizer to load"
    assert divergence.units is not None
    assert divergence.units.median == 4
    assert as_data(comparison)["compared"][0]["texts"]["first_differing_token"]["from"] == "ids"


def test_without_ids_on_one_side_tokens_are_cut_from_the_text_and_marked_so(write_run: Write):
    reference, run = completion("p", text="a b c"), completion("p", text="a b d")
    comparison = compare_folders(
        [write_run("a", [with_ids(reference, 7, 8, 8, 8, 5, 2)], "batch.size=1"), write_run("b", [run])]
    )
    first = as_data(comparison)["compared"][0]["texts"]["first_differing_token"]
    assert (first["from"], first["median"]) == ("text", 2)


def test_an_answer_that_goes_on_where_the_other_ends_parts_at_the_token_of_the_end(write_run: Write):
    reference = with_ids(completion("p", text="a b"), 7, 8, 2)
    run = with_ids(completion("p", text="a b c"), 7, 8, 9, 2)
    divergence = only_divergence(compare_folders([write_run("a", [reference], "batch.size=1"), write_run("b", [run])]))
    assert divergence.units is not None
    assert divergence.units.median == 2


def test_a_label_with_its_end_token_is_a_single_token(write_run: Write):
    reference = [with_ids(completion(str(n), text="yes"), 7, 2) for n in range(20)]
    run = [with_ids(completion(str(n), text="no" if n < 5 else "yes"), 8 if n < 5 else 7, 2) for n in range(20)]
    divergence = only_divergence(compare_folders([write_run("a", reference, "batch.size=1"), write_run("b", run)]))
    assert (divergence.at_start, divergence.at_start_single) == (0, 5)


def test_the_two_similarities_are_of_all_and_of_those_that_differ_and_neither_is_rounded_to_all(write_run: Write):
    # Of two characters one differs: similarity 1/2. Over four pairs: (3 + 1/2) / 4.
    texts = {str(n): "ab" for n in range(4)}
    divergence = only_divergence(
        compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", texts | {"0": "ax"})])
    )
    assert (divergence.similarity, divergence.similarity_of_differing) == (0.875, 0.5)
    long = {str(n): "x" * 9999 for n in range(4)}
    comparison = compare_folders(
        [write_run("c", {**long, "0": long["0"] + "y"}, "batch.size=1"), write_run("d", {**long, "0": long["0"] + "z"})]
    )
    (table,) = text_tables(comparison, width=0)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["similar"], row["if differ"]) == (">99.9%", ">99.9%")


def test_the_end_of_an_interval_is_100_only_where_it_is(write_run: Write):
    texts = {str(n): "x" for n in range(3000)}
    runs = [
        write_run("a", texts, "batch.size=1"),
        write_run("b", texts | {"0": "y"}),
        write_run("c", texts, "batch.size=2"),
    ]
    (table,) = text_tables(compare_folders(runs), width=0)
    exact = [row[table.columns.index("exact")] for row in table.rows]
    assert exact == [">99.9% (>99->99)", "100% (>99-100)"]


def test_half_of_the_answers_part_within_a_count_that_the_note_states_with_its_denominator(write_run: Write):
    texts = {str(n): "one two three four" for n in range(4)}
    other = {str(n): "one two three 4" if n < 3 else texts[str(n)] for n in range(4)}
    notes = note_texts(compare_folders([write_run("a", texts, "batch.size=1"), write_run("b", other)]))
    assert "Run b: 25.0% of 4 answers are the reference's; half of all part within 4 tokens" in notes


@pytest.mark.parametrize("name", ["finished", "sweep/0"])
def test_an_older_record_has_no_ids_and_is_compared_by_its_text(name: str, tmp_path: Path):
    folder = Path(__file__).parents[1] / "data" / "previous_version" / name
    lines = (folder / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()
    assert not any("token_ids" in json.loads(line) for line in lines)
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (changed / path.name).write_bytes(path.read_bytes())
    records = [json.loads(line) for line in lines]
    for record in records:
        record["text"] = record["text"] and record["text"] + " more"
    (changed / "outcomes.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    comparison = compare_folders([folder, changed], reference=folder)
    divergence = only_divergence(comparison)
    assert divergence.differing > 0
    assert divergence.source == "text"
    assert comparison.compared[0].noise_floor is None
    assert "NaN" not in json.dumps(as_data(comparison))
