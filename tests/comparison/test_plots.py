"""Pictures are drawn of the data that there is, and show all of it."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from runner import app
from runner.cli import compare
from runner.comparison.compare import Comparison, compare_folders
from runner.comparison.present.plots import draw, latency, pareto
from tests.comparison.helpers import Write, sentences
from tests.conftest import Compose
from tests.factories import failure


@pytest.mark.parametrize("size", ["auto", "3"])
def test_pictures_are_drawn_of_what_there_is_and_the_page_says_what_there_is_not(
    size: str, config: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    app.run(config("provider=echo", "batch.mode=concurrent", f"batch.size={size}"), tmp_path / "run")
    compare.main([str(tmp_path / "run"), "--output", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} == {
        "throughput.png",
        "latency.png",
        "pareto.png",
    }
    source = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert source.count("not drawn") == 3
    assert "nothing to compare" in capsys.readouterr().out


def test_all_five_pictures_are_drawn_of_static_batches(config: Compose, tmp_path: Path):
    sweep = tmp_path / "sweep"
    for job, size in enumerate((1, 4)):
        app.run(config("provider=echo", "batch.mode=static", f"batch.size={size}"), sweep / str(job))
    compare.main([str(sweep)])
    names = {path.name for path in (sweep / "plots").iterdir()}
    assert names == {"throughput.png", "latency.png", "work.png", "divergence.png", "pareto.png"}
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
    latency(figure, of_models(write_run, 4))
    figure.canvas.draw()
    panels = figure.axes
    assert len(panels) == 4
    assert len({panel.get_subplotspec().get_gridspec().ncols for panel in panels}) == 1  # type: ignore[union-attr]
    assert panels[0].get_subplotspec().get_gridspec().ncols == 3, "a row of three can be read"  # type: ignore[union-attr]
    for panel in panels:
        bottom, top = panel.get_ylim()
        drawn = [float(y) for line in panel.lines for y in np.asarray(line.get_ydata())]
        assert drawn
        assert bottom <= min(drawn) <= max(drawn) <= top


def test_series_beyond_those_that_can_be_told_apart_have_no_panel_and_are_points(write_run: Write):
    comparison = of_models(write_run, 9)
    panels, points = Figure(), Figure()
    latency(panels, comparison)
    assert len(panels.axes) == 6
    assert all(panel.lines for panel in panels.axes)
    assert "3 more: see the table" in panels.get_suptitle()
    pareto(points, comparison)
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
    latency(figure, compare_folders(runs))
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
    pareto(figure, compare_folders(runs))
    assert [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines] == [[1.0, 3.0], [10.0, 30.0]]
