"""Pictures are drawn of the data that there is, and show all of it."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from runner import app
from runner.cli import compare
from runner.comparison.compare import Comparison, compare_folders
from runner.comparison.present.figures import Measured, measured
from runner.comparison.present.page import render
from runner.comparison.present.plots.axes import STYLES, bars_caption, error_bars
from runner.comparison.present.plots.bars import draw_time, draw_work
from runner.comparison.present.plots.by_size import draw_divergence, draw_latency, draw_throughput
from runner.comparison.present.plots.catalog import PLOTS, draw
from runner.comparison.present.plots.pareto import draw_pareto
from tests.comparison.helpers import Write, contrast, sentences
from tests.conftest import Compose
from tests.factories import failure


@pytest.mark.parametrize("size", ["auto", "3"])
def test_pictures_are_drawn_of_what_there_is_and_the_page_says_what_there_is_not(
    size: str, config: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    app.run(config("provider=echo", "batch.mode=concurrent", f"batch.size={size}"), tmp_path / "run")
    compare.main([str(tmp_path / "run"), "--output", str(tmp_path / "out")])
    names = {path.name for path in (tmp_path / "out" / "plots").iterdir()}
    assert names >= {"throughput.png", "latency.png", "pareto.png"}
    assert not names & {"work.png", "divergence.png"}
    source = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert source.count("not drawn") == len(PLOTS) - len(names)
    assert "nothing to compare" in capsys.readouterr().out


def test_pictures_of_static_batches_are_drawn_as_png_files(config: Compose, tmp_path: Path):
    sweep = tmp_path / "sweep"
    for job, size in enumerate((1, 4)):
        app.run(config("provider=echo", "batch.mode=static", f"batch.size={size}"), sweep / str(job))
    compare.main([str(sweep)])
    names = {path.name for path in (sweep / "plots").iterdir()}
    assert names >= {"throughput.png", "latency.png", "work.png", "divergence.png", "pareto.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (sweep / "plots").iterdir())


def test_more_series_than_can_be_told_apart_and_names_that_are_no_latin_or_a_formula_are_drawn(
    write_run: Write, tmp_path: Path
):
    metrics = {"output_tokens_per_s": 10.0, "prompts_per_s": 1.0, "latency_p50_s": 1.0}
    runs = [
        write_run(f"r{n}", sentences(2), f"model.id='$\\frac{n}模型'", "batch.size=1", metrics=metrics)
        for n in range(9)
    ]
    compare.main([*map(str, runs), "--output", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} >= {
        "throughput.png",
        "latency.png",
        "pareto.png",
    }


def of_models(write_run: Write, count: int) -> Comparison:
    """Models at two batch sizes, each ten times as slow as the one before."""
    runs = [
        write_run(f"m{n}-{size}", sentences(2), f"model.id=m{n}", f"batch.size={size}",
                  metrics={"output_tokens_per_s": 10.0 * size + n, "prompts_per_s": size + n, "latency_p50_s": size * 10.0**n, "latency_p90_s": 20.0**n})
        for n in range(count) for size in (1, 4)
    ]  # fmt: skip
    return compare_folders(runs)


def test_every_panel_of_the_latency_picture_shows_all_of_its_lines(write_run: Write):
    figure = Figure()
    draw_latency(figure, of_models(write_run, 4))
    figure.canvas.draw()
    panels = figure.axes
    assert len(panels) == 4
    assert len({panel.get_subplotspec().get_gridspec().ncols for panel in panels}) == 1  # type: ignore[union-attr]
    assert panels[0].get_subplotspec().get_gridspec().ncols == 2, "a row of two can be read on a phone"  # type: ignore[union-attr]
    for panel in panels:
        bottom, top = panel.get_ylim()
        drawn = [float(y) for line in panel.lines for y in np.asarray(line.get_ydata())]
        assert drawn
        assert bottom <= min(drawn) <= max(drawn) <= top


def test_series_beyond_those_that_can_be_told_apart_have_no_panel_and_are_points(write_run: Write):
    comparison = of_models(write_run, 9)
    panels, points = Figure(), Figure()
    caption = draw_latency(panels, comparison)
    assert len(panels.axes) == 6
    assert all(panel.lines for panel in panels.axes)
    assert "3 more: see the table" in caption
    draw_pareto(points, comparison)
    (axes,) = points.axes
    drawn = {tuple(point) for part in axes.collections for point in np.asarray(part.get_offsets()).tolist()}
    fronts = {tuple(point) for line in axes.lines for point in np.asarray(line.get_xydata()).tolist()}
    assert fronts
    assert fronts <= drawn, "the fronts go through what is drawn"
    assert "3 more: see the table" in [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]


def test_a_long_model_name_is_no_question_mark_in_a_picture(write_run: Write):
    runs = [
        write_run(f"m{n}", sentences(2), f"model.id=organisation/a-long-model-name-{n}", "batch.size=1",
                  metrics={"latency_p50_s": 1.0})
        for n in (1, 2)
    ]  # fmt: skip
    figure = Figure()
    draw_latency(figure, compare_folders(runs))
    titles = [panel.get_title() for panel in figure.axes]
    assert len(set(titles)) == 2
    assert not any("?" in title for title in titles)


def test_a_repeat_that_completed_nothing_leaves_the_others_their_picture(write_run: Write):
    failed = [failure(str(n)) for n in range(4)]
    runs = [
        write_run("sweep/0", sentences(4), "batch.size=1"),
        write_run("sweep/1", sentences(4), "batch.size=4", "repeat=1"),
        write_run("sweep/2", failed, "batch.size=4", "repeat=2", status="FAILED"),
    ]
    comparison = compare_folders(runs)
    assert comparison.compared_texts(comparison.rows[1]) == 4
    assert next(picture for picture in draw(comparison) if picture.name == "divergence").png


def test_each_request_has_a_front_of_its_own(write_run: Write):
    runs = [
        write_run(f"{model}-{size}", sentences(2), f"model.id={model}", f"batch.size={size}",
                  metrics={"prompts_per_s": rate, "latency_p50_s": latency})
        for model, size, rate, latency in (("one", 1, 1.0, 1.0), ("one", 4, 3.0, 2.0), ("two", 1, 10.0, 0.1), ("two", 4, 30.0, 0.2))
    ]  # fmt: skip
    figure = Figure()
    draw_pareto(figure, compare_folders(runs))
    assert [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines] == [[1.0, 3.0], [10.0, 30.0]]


TIMES = {"duration_s": 10.0, "prefill_s": 2.0, "decode_s": 6.0, "tail_wait_ratio": 0.5, "load_s": 3.0}


def widths(figure: Figure, panel: int = 0) -> list[list[float]]:
    """The widths of the bars of each part."""
    parts = [part for part in figure.axes[panel].containers if isinstance(part, BarContainer)]
    return [[float(bar.get_width()) for bar in part] for part in parts]


def test_the_seconds_of_a_job_are_prefill_decoding_tail_wait_and_the_rest(write_run: Write):
    """Of 6 s of decoding half the slots are idle: 3 s and 3 s; 10 - 2 - 6 = 2 s are between calls."""
    runs = [write_run("a", sentences(2), "batch.size=1", metrics=TIMES), write_run("old", sentences(2), "batch.size=4")]
    figure = Figure()
    caption = draw_time(figure, compare_folders(runs))
    assert widths(figure) == [[2.0], [3.0], [3.0], [2.0]]
    assert figure.axes[0].get_xlabel() == "seconds of the job"
    assert "loading 3.0 s" in caption
    assert "not drawn: run old" in caption


def test_the_bar_of_repeats_is_their_mean_with_the_range_of_the_whole(write_run: Write):
    """Means: prefill (2 + 4) / 2 = 3, decoding and tail wait 3, the rest (2 + 2) / 2 = 2; the jobs took 10 and 12 s."""
    runs = [
        write_run("a", sentences(2), "batch.size=1", "repeat=1", metrics=TIMES),
        write_run("b", sentences(2), "batch.size=1", "repeat=2", metrics=TIMES | {"prefill_s": 4.0, "duration_s": 12.0}),
    ]  # fmt: skip
    figure = Figure()
    caption = draw_time(figure, compare_folders(runs))
    assert widths(figure) == [[3.0], [3.0], [3.0], [2.0]]
    (bars,) = (part for part in figure.axes[0].collections if len(part.get_paths()))
    assert np.asarray(bars.get_paths()[0].vertices)[:, 0].tolist() == [10.0, 12.0]
    assert "Means of 2 repeats" in caption


def test_the_seconds_of_requests_are_those_of_a_request(write_run: Write):
    """4 calls with 2 and 6 request-seconds: 0.5 and 1.5 s each."""
    metrics = {"latency_samples": 4.0, "prefill_s": 2.0, "decode_s": 6.0, "queued_p50_s": 0.25, "duration_s": 2.0}
    run = write_run("a", sentences(4), "batch.mode=concurrent", "batch.size=4", metrics=metrics)
    figure = Figure()
    draw_time(figure, compare_folders([run]))
    assert widths(figure) == [[0.25], [0.5], [1.5]]
    assert figure.axes[0].get_xlabel() == "mean seconds of a completed request"


def test_shares_of_work_count_the_slots_that_were_computed(write_run: Write):
    """40 prompt tokens with a fifth of padding: 10 slots idle. 30 output tokens with a quarter of tail wait: 10 idle."""
    metrics = {"input_tokens": 40.0, "output_tokens": 30.0, "prompt_padding_ratio": 0.2, "tail_wait_ratio": 0.25}
    figure = Figure()
    draw_work(figure, compare_folders([write_run("a", sentences(2), "batch.size=4", metrics=metrics)]))
    assert widths(figure) == [[pytest.approx(100 * slots / 90)] for slots in (40, 30, 10, 10)]


def test_repeats_have_error_bars_and_the_caption_says_of_what(write_run: Write):
    runs = [
        write_run(f"s/{n}", sentences(16), f"batch.size={size}", f"repeat={repeat}",
                  metrics={"prompts_per_s": float(size * repeat), "latency_p50_s": 1.0, "completed_prompts": 16.0})
        for n, (size, repeat) in enumerate((size, repeat) for size in (1, 4) for repeat in (1, 2, 3))
    ]  # fmt: skip
    comparison = compare_folders(runs)
    figure = Figure()
    assert draw_throughput(figure, comparison) == (
        "16 completed prompts a run. Points are medians of 3 repeats. Error bars are their range."
    )
    segments = [
        np.asarray(path.vertices)[:, 1].tolist() for part in figure.axes[0].collections for path in part.get_paths()
    ]
    assert segments == [[1.0, 3.0], [4.0, 12.0]]
    assert draw_divergence(Figure(), comparison) == (
        "At least 16 compared answers a run. Points are medians of 2 to 3 repeats. Error bars are 95 % intervals, of "
        "repeats from the lowest end to the highest."
    )


def test_a_percentiles_interval_without_an_upper_end_has_a_bar_below_only(write_run: Write):
    (row,) = compare_folders([write_run("a", sentences(2), metrics={"latency_p99_s": 2.0})]).rows
    figure = measured(row, "latency_p99_s", {row.runs[0].folder.path: {"latency_p99_s_low": 1.5}})
    assert figure == Measured(value=2.0, low=1.5, high=None, interval="95 % interval", runs=1)
    assert error_bars([figure]) == [[0.5], [0.0]]
    assert bars_caption([figure]) == "Error bars are 95 % intervals."


def test_the_interval_of_repeats_reaches_from_the_lowest_to_the_highest_end(write_run: Write):
    runs = [write_run(name, sentences(2), f"repeat={name}", metrics={"latency_p50_s": float(name)}) for name in "123"]
    (row,) = compare_folders(runs).rows
    ends = ((0.5, 1.5), (1.8, 2.5), (2.5, 4.0))
    added = {
        run.folder.path: {"latency_p50_s_low": low, "latency_p50_s_high": high}
        for run, (low, high) in zip(row.runs, ends, strict=True)
    }
    assert measured(row, "latency_p50_s", added) == Measured(
        value=2.0, low=0.5, high=4.0, interval="95 % interval", runs=3
    )
    assert measured(row, "latency_p50_s", {}) == Measured(value=2.0, low=1.0, high=3.0, interval="range", runs=3)


def test_every_series_can_be_seen_on_the_light_and_on_the_dark_page(write_run: Write):
    source = render(compare_folders([write_run("a", sentences(2))]), [], title="a")
    grounds = re.findall(r"--ground: (#[0-9a-f]{6})", source)
    assert len(grounds) == 2
    for ground in grounds:
        for style in STYLES:
            assert contrast(ground, style["color"]) >= 3, f"{style['color']} on {ground}"


def test_pictures_on_a_page_take_its_ink_and_share_no_id(write_run: Write):
    runs = [
        write_run(name, sentences(4), f"batch.size={size}", metrics=TIMES | {"prompts_per_s": 1.0, "latency_p50_s": 1.0})
        for name, size in (("a", 1), ("b", 4))
    ]  # fmt: skip
    pictures = [picture for picture in draw(compare_folders(runs)) if picture.svg]
    ids = [id_ for picture in pictures for id_ in re.findall(r' id="([^"]+)"', picture.svg)]
    assert len(pictures) >= 5
    assert len(set(ids)) == len(ids)
    for picture in pictures:
        assert "currentColor" in picture.svg
        assert "#1b1f24" not in picture.svg
        used = re.findall(r'(?:url\(#|href="#)([^)"]+)', picture.svg)
        assert set(used) <= set(ids), "a clip path or a marker that is not there"


def test_a_name_with_markup_is_text_in_a_picture(write_run: Write):
    runs = [
        write_run(f"m{n}", sentences(2), f"model.id='<script>{n}</script>'", metrics={"prompts_per_s": 1.0, "latency_p50_s": 1.0})
        for n in (1, 2)
    ]  # fmt: skip
    pictures = [picture for picture in draw(compare_folders(runs)) if picture.svg]
    assert pictures
    assert "&lt;script&gt;" in pictures[0].svg
    assert not any("<script" in picture.svg for picture in pictures)
