"""Which run is the reference of which, and what is compared of the two."""

from runner.comparison.compare import compare_folders
from runner.comparison.present.tables import text_tables
from runner.record.folder import RunFolder
from tests.comparison.helpers import Write, alarms, note_texts, only_divergence, sentences


def test_the_reference_is_the_smallest_batch_of_the_model_or_the_one_that_is_named(write_run: Write):
    same = sentences(3)
    big, small, middling = (write_run(f"s{size}", same, f"batch.size={size}") for size in (16, 1, 4))
    comparison = compare_folders([big, small, middling])
    assert {compared.pair.reference.label for compared in comparison.compared} == {"s1"}
    assert "the run with batch.size=1" in note_texts(comparison)
    assert "no such run has batch.size=1" in note_texts(compare_folders([big, middling]))
    named = compare_folders([small, middling], reference=big)
    assert {compared.pair.run.label: compared.pair.reference.label for compared in named.compared} == {
        "s1": "s16",
        "s4": "s16",
    }


def test_what_batching_did_is_seen_within_every_other_setting(write_run: Write):
    texts = {"float32": sentences(4), "bfloat16": sentences(4, other_from=2)}
    runs = []
    for dtype in texts:
        for size in (1, 16):
            runs.append(write_run(f"{dtype}-{size}", texts[dtype], f"batch.size={size}"))
            RunFolder(runs[-1]).write_environment({"provider": {"dtype": dtype}})
    comparison = compare_folders(runs)
    matched = {
        compared.pair.run.label: (compared.pair.reference.label, compared.exact_match_ratio)
        for compared in comparison.compared
    }
    assert matched == {
        "float32-16": ("float32-1", 1.0),
        "bfloat16-1": ("float32-1", 0.5),
        "bfloat16-16": ("bfloat16-1", 1.0),
    }
    assert "Apart from the batch, run bfloat16-1 differs from run float32-1: provider.dtype bfloat16" in note_texts(
        comparison
    )
    (table,) = text_tables(comparison)
    assert [row[table.columns.index("vs")] for row in table.rows] == ["float32-1", "float32-1", "bfloat16-1"]


def test_a_baseline_that_did_not_finish_is_named(write_run: Write):
    killed = write_run("killed", sentences(2), "batch.size=1", status="KILLED")
    notes = note_texts(compare_folders([killed, write_run("four", sentences(4), "batch.size=4"),
                                  write_run("nine", sentences(4), "batch.size=9")]))  # fmt: skip
    assert "Reference: run four" in notes
    assert "run killed with batch.size=1 did not finish" in notes
    assert "no such run" not in notes


def test_other_models_are_a_comparison_of_outputs_and_no_divergence(write_run: Write):
    same = sentences(3)
    comparison = compare_folders(
        [write_run("a", same, "model.id=one", "batch.size=1"), write_run("b", same, "model.id=two")]
    )
    assert comparison.compared[0].pair.kind == "outputs"
    assert only_divergence(comparison).exact_match_ratio == 1
    (table,) = text_tables(comparison)
    assert table.title.startswith("Comparison of outputs")
    assert "not divergence" in note_texts(comparison)
    assert not any("exact_match_ratio" in added for added in comparison.metrics.values())


def test_other_generation_parameters_are_named_and_nothing_is_compared(write_run: Write):
    rates = ({"output_tokens_per_s": 10.0}, {"output_tokens_per_s": 30.0})
    one = write_run("a", sentences(3), "generation.max_tokens=8", "batch.size=1", metrics=rates[0])
    two = write_run("b", sentences(3), "generation.max_tokens=9", metrics=rates[1])
    comparison = compare_folders([one, two])
    assert comparison.compared[0].divergence is None
    assert "generation.max_tokens 9 (reference: 8)" in note_texts(comparison)
    assert comparison.metrics == {}, "another request is another job: no speed-up"


def test_sampled_runs_are_compared_with_the_same_seed_only(write_run: Write):
    sampled = ("generation.temperature=0.7", "generation.max_tokens=8")
    a = write_run("a", sentences(3), *sampled, "seed=1", "batch.size=1")
    b = write_run("b", sentences(3), *sampled, "seed=2", "batch.size=2")
    assert "same seed only: seed 2 (reference: 1)" in note_texts(compare_folders([a, b]))
    c = write_run("c", sentences(3, other_from=0), *sampled, "seed=1", "batch.size=4")
    comparison = compare_folders([a, c])
    assert only_divergence(comparison).exact_match_ratio == 0
    assert "Sampled texts" in note_texts(comparison)
    assert not alarms(comparison), "other batches draw other random numbers"


def test_of_other_prompt_sets_the_common_prompts_are_compared(write_run: Write):
    asked = {"1": "first", "2": "second", "3": "third"}
    one = write_run("a", sentences(4), "batch.size=1", prompts={"0": "zero", **asked})
    two = write_run("b", {"1": "other", **{p: sentences(4)[p] for p in "23"}}, prompts={**asked, "2": "changed"})
    comparison = compare_folders([one, two])
    texts = only_divergence(comparison)
    assert (texts.compared, texts.equal) == (2, 1), "prompt 2 has the same id and is another prompt"
    assert "the 2 prompts in common" in note_texts(comparison)
    three = write_run("c", {"0": "x"}, prompts={"0": "nothing alike"})
    comparison = compare_folders([one, three])
    assert comparison.compared[0].divergence is None
    assert "no prompt in common" in note_texts(comparison)


def test_settings_that_differ_besides_the_batch_are_named(write_run: Write):
    one = write_run("a", sentences(3), "batch.size=1")
    two = write_run("b", sentences(3), "provider.latency_s=0.5")
    for folder, dtype in ((one, "float32"), (two, "bfloat16")):
        RunFolder(folder).write_environment({"provider": {"dtype": dtype}})
    notes = note_texts(compare_folders([one, two]))
    assert "provider.latency_s 0.5 (reference: 0" in notes
    assert "provider.dtype bfloat16 (reference: float32)" in notes
