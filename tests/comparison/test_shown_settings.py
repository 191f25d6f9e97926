"""Settings identify the runs in tables, pictures and curves."""

from runner.cli import sweep
from runner.comparison.compare import compare_folders
from runner.comparison.present.settings import series
from runner.comparison.present.tables import speed_table
from tests.comparison.helpers import Write, sentences


def test_no_match_is_a_curve_between_two_models(write_run: Write):
    runs = [write_run(f"m{n}", sentences(2), f"model.id=m{n}", f"batch.size={n}", metrics={"prompts_per_s": 1.0}) for n in (1, 2)]  # fmt: skip
    names = [name for name, *_ in sweep.curves(compare_folders(runs))]
    assert names == ["by batch size/prompts_per_s/static m1", "by batch size/prompts_per_s/static m2"]


def test_values_that_end_alike_are_told_apart_everywhere(write_run: Write):
    ids = ("one/a-model-of-8B-parameters-Instruct", "two/a-model-of-8B-parameters-Instruct")
    runs = [
        write_run(f"m{n}", sentences(2), f"model.id={id_}", "batch.size=1", metrics={"output_tokens_per_s": 1.0 + n})
        for n, id_ in enumerate(ids)
    ]
    comparison = compare_folders(runs)
    assert len(set(series(comparison.runs).values())) == 2
    assert len({name for name, *_ in sweep.curves(comparison)}) == 2
    assert len({row[1] for row in speed_table(comparison).rows}) == 2
    sizes = ("org/family-of-models-135M-Instruct", "org/family-of-models-1.7B-Instruct")
    runs = [write_run(f"s{n}", sentences(2), f"model.id={id_}") for n, id_ in enumerate(sizes)]
    assert list(series(compare_folders(runs).runs).values()) == ["static, …135M-Instruct", "static, …1.7B-Instruct"]


def test_a_series_says_which_settings_its_values_are(write_run: Write):
    runs = [write_run(f"l{n}", sentences(2), f"provider.latency_s={n}", "batch.size=1") for n in (0.001, 1)]
    assert list(series(compare_folders(runs).runs).values()) == ["static, latency_s=0.001", "static, latency_s=1"]


def test_prompt_sets_that_were_swept_are_told_apart_by_one_key(write_run: Write):
    runs = [
        write_run(f"p{n}", sentences(n), f"prompts.limit={n}", "batch.size=1", metrics={"output_tokens_per_s": 1.0})
        for n in (2, 3)
    ]
    comparison = compare_folders(runs)
    table = speed_table(comparison)
    assert [row[table.columns.index("limit")] for row in table.rows] == ["2", "3"]
    assert [name for name in table.columns if name in ("limit", "path")] == ["limit"]
