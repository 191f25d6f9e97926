"""Tables fit their width and name the columns that they leave out."""

import re
from pathlib import Path

import pytest

from runner.cli import compare
from runner.comparison.compare import compare_folders
from runner.comparison.present.figures import METRIC_COLUMNS
from runner.comparison.present.markdown import markdown_note
from runner.comparison.present.tables import grouped_speed_tables, grouped_text_tables, speed_table, text_tables
from tests.comparison.helpers import Write, note_texts, sentences


def test_columns_that_are_left_out_are_named(write_run: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    long = "a-setting-of-some-length"
    runs = [
        write_run(f"2026-01-0{n}_abcdef_and_more_{long}", sentences(2), f"batch.size={n}",
                  f"provider.latency_s={n / 7}", f"batch.order={'length' if n % 2 else 'given'}",
                  f"limits.timeout_s={n}00")
        for n in (1, 2, 3)
    ]  # fmt: skip
    comparison = compare_folders(runs)
    (narrow,), (wide,) = text_tables(comparison), text_tables(comparison, width=0)
    assert "similar" in narrow.left_out
    assert "size" in narrow.columns, "it is what is compared"
    assert "similar" in wide.columns
    assert not wide.left_out
    compare.main([*map(str, runs), "--output", str(tmp_path / "out")])
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"No room here for [^:]*\bsimilar\b", shown)
    assert '<th role="columnheader" class="figure">similar</th>' in (tmp_path / "out" / "comparison.html").read_text(
        encoding="utf-8"
    )
    assert re.search(r"No room here for [^:]*\bsimilar\b[^:]*: see comparison.html", markdown_note(comparison))


def test_the_pages_tables_of_texts_have_every_column_in_two_parts(write_run: Write):
    runs = [write_run("a", sentences(3), "batch.size=1"), write_run("b", sentences(3, other_from=1), "batch.size=2")]
    comparison = compare_folders(runs)
    (whole,), (first, second) = text_tables(comparison, width=0), grouped_text_tables(comparison)
    identity = whole.columns[: whole.text_columns]
    assert first.columns + second.columns[len(identity) :] == whole.columns
    assert second.columns[: len(identity)] == identity
    assert [left + right[len(identity) :] for left, right in zip(first.rows, second.rows, strict=True)] == list(
        whole.rows
    )


def test_a_row_of_many_repeats_has_a_short_name_and_its_speed(write_run: Write):
    runs = [
        write_run(f"2026-01-01_10-00-0{n}_abc", sentences(2), f"batch.size={size}", f"repeat={n + 1}",
                  metrics={"output_tokens_per_s": 5.0 * size, "latency_p50_s": 1.0})
        for size, repeats in ((1, range(8)), (4, range(8, 9))) for n in repeats
    ]  # fmt: skip
    comparison = compare_folders(runs)
    table = speed_table(comparison)
    assert table.rows[0][0] == "2026-01-01_10-00-00_abc +7"
    assert "tokens/s" in table.columns
    assert "Run 2026-01-01_10-00-00_abc +7: 2026-01-01_10-00-00_abc, 2026-01-01_10-00-01_abc" in note_texts(comparison)


def test_the_table_fits_100_columns_with_many_swept_keys(write_run: Write, capsys: pytest.CaptureFixture[str]):
    metrics = {
        "output_tokens_per_s": 123456.7, "prompts_per_s": 1234.5, "latency_p50_s": 123.45, "latency_p95_s": 234.5,
        "time_to_first_token_p50_s": 0.012, "prompt_padding_ratio": 0.5, "tail_wait_ratio": 0.5, "cost_usd": 1.0,
        "completed_prompts": 10, "output_tokens": 100,
    }  # fmt: skip
    runs = [
        write_run(f"2026-01-0{n}_abcdef", sentences(2), f"batch.size={n}", f"model.id=a-quite-long/model-name-{n}-instruct",
                  f"generation.max_tokens={n}", f"batch.order={'length' if n % 2 else 'given'}", metrics=metrics)
        for n in range(1, 5)
    ]  # fmt: skip
    compare.main([*map(str, runs), "--output", str(runs[0].parent / "out")])
    shown = capsys.readouterr().out
    table, _, rest = shown.partition("\n- ")
    assert max(map(len, table.splitlines())) <= 100
    assert max(len(line) for line in rest.splitlines() if not line.startswith(("Page", "Data", "Plots"))) <= 100
    assert "No room here for" in shown


def test_a_job_that_left_nothing_is_a_row_with_dashes(write_run: Write, tmp_path: Path):
    sweep = tmp_path / "sweep"
    write_run("sweep/0", sentences(2), metrics={"output_tokens_per_s": 5.0, "latency_p50_s": 1.0})
    (sweep / "1" / ".hydra").mkdir(parents=True)
    (sweep / "1" / ".hydra" / "config.yaml").write_text("batch: {size: 999, mode: null}\n")
    compare.main([str(sweep)])
    comparison = compare_folders([sweep / "0", sweep / "1"])
    row = dict(zip(speed_table(comparison).columns, speed_table(comparison).rows[1], strict=True))
    assert (row["size"], row["status"], row["tokens/s"], row["speed-up"]) == ("999", "no result", "-", "-")
    assert "| 999 |" in markdown_note(comparison)


def test_the_pages_percentiles_are_of_completed_calls_with_the_failed_share_beside(write_run: Write):
    """1 of 4 prompts of the first run failed, and of the second none; together their tables have every column."""
    metrics = {"prompts_per_s": 1.0, "completed_prompts": 3.0, "latency_p50_s": 1.0, "latency_samples": 3.0}
    runs = [
        write_run("a", sentences(4), "batch.size=1", metrics=metrics | {"failed_prompts": 1.0}),
        write_run("b", sentences(4), "batch.size=4", metrics=metrics | {"failed_prompts": 0.0, "tail_wait_ratio": 0.5}),
    ]
    comparison = compare_folders(runs)
    tables = {table.title: table for table in grouped_speed_tables(comparison)}
    latency = tables["Latency of completed calls"]
    assert latency.columns == ("run", "size", "mode", "calls", "failed", "p50 s")
    assert [row[3:5] for row in latency.rows] == [("3", "25.0% of 4"), ("3", "0%")]
    columns = {head for table in tables.values() for head in table.columns}
    assert set(speed_table(comparison, width=0).columns) <= columns


def test_an_interval_stands_whole_beside_its_figure_and_an_end_that_cannot_be_had_is_left_out(write_run: Write):
    (row,) = compare_folders([write_run("a", sentences(2), metrics={"latency_p99_s": 2.0})]).rows
    (column,) = (column for column in METRIC_COLUMNS if column.name == "latency_p99_s")
    folder, low, high = row.runs[0].folder.path, {"latency_p99_s_low": 1.5}, {"latency_p99_s_high": 2.5}
    for added, text in ((low | high, "2.00 (1.50-2.50)"), (low, "2.00 (from 1.50)"), (high, "2.00 (to 2.50)")):
        assert column.cells([row], {folder: added}, with_interval=True) == [text]
    assert column.cells([row], {folder: low | high}) == ["2.00"]
