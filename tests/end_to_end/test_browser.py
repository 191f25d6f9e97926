"""What a person sees of a sweep: the MLflow UI and comparison.html, in a real browser.

RUNNER_SCREENSHOTS=docs saves the README's pictures there. RUNNER_SWEEP=FOLDER looks at a sweep that there is already,
made from this directory, instead of making one.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect

from runner.config.schema import CONF_DIR
from runner.record.folder import RunFolder
from runner.record.manifest import MlflowRunRef
from runner.tracking.uri import sqlite_path
from runner.tracking.view import jobs_page
from runner.types import Completion
from tests.browser import chromium
from tests.servers.mlflow_server import serve

SCREENSHOTS = os.environ.get("RUNNER_SCREENSHOTS")
THROUGHPUT = "by batch size/output_tokens_per_s"
_PATIENCE_MS = 30_000

expect.set_options(timeout=_PATIENCE_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A sweep, and the addresses of its experiment and of its jobs in a served UI."""

    folder: Path
    parent: str
    address: str
    jobs: str

    def child(self) -> Path:
        return self.folder / "0"

    def run(self, run_id: str, page: str = "") -> str:
        return f"{self.address}/runs/{run_id}{page}"

    def child_page(self, page: str) -> str:
        tracked = RunFolder(self.child()).read_mlflow_run()
        assert tracked
        return self.run(tracked.run_id, page)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(_PATIENCE_MS)
    # MLflow's assistant opens itself on the first visit and takes a third of the page.
    context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def sweep(browser: Browser, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over batch sizes and dtypes: rounding differs between the dtypes, so some texts do."""
    if made := os.environ.get("RUNNER_SWEEP"):
        return Path(made).absolute()
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "prompts.jsonl").write_text("".join(_prompts_of_the_tiny_models_letters(8)), encoding="utf-8")
    overrides = [
        *(f"model.id={tiny_model}", "provider=transformers", "provider.device=cpu", "generation.max_tokens=12"),
        *("prompts=file", "prompts.path=prompts.jsonl", f"tracking.uri=sqlite:///{folder}/store/mlflow.db"),
        *("batch.size=1,4", "provider.dtype=float32,bfloat16", "hydra.sweep.dir=sweep"),
    ]
    command = [sys.executable, "-m", "runner", "-m", *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "sweep"


def _prompts_of_the_tiny_models_letters(count: int) -> list[str]:
    lines = (CONF_DIR / "prompts" / "demo.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    texts = {line: json.loads(line)["prompt"] for line in lines}
    return [line for line, text in texts.items() if text.isascii() and text.isprintable() and len(text) < 150][:count]


@pytest.fixture(scope="module")
def shown(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    parent = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))
    tracked = RunFolder(sweep / "0").read_mlflow_run()
    assert tracked
    with serve(tmp_path_factory.mktemp("server"), f"sqlite:///{sqlite_path(parent['uri'])}") as port:
        server = f"http://127.0.0.1:{port}"
        address, jobs = f"{server}/#/experiments/{tracked.experiment_id}", jobs_page(tracked_parent(sweep))
        yield Shown(folder=sweep, parent=parent["run_id"], address=address, jobs=server + jobs)


def tracked_parent(sweep: Path) -> MlflowRunRef:
    """The parent run of a sweep, in the experiment of its jobs."""
    job = RunFolder(sweep / "0").read_mlflow_run()
    assert job
    return replace(job, run_id=json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))["run_id"])


def job_ids(sweep: Path) -> list[str]:
    references = [RunFolder(job).read_mlflow_run() for job in sorted(sweep.glob("[0-9]*"))]
    return [reference.run_id for reference in references if reference]


def compared(sweep: Path) -> Any:
    return json.loads((sweep / "comparison.json").read_text(encoding="utf-8"))


def answers(folder: Path) -> dict[str, str]:
    """A run's prompts with their answers in the order of its record, as a page shows them: blanks in one."""
    prompts = {prompt.id: prompt.messages[-1].content for prompt in RunFolder(folder).read_prompts()}
    completions = [outcome for outcome in RunFolder(folder).outcomes.read() if isinstance(outcome, Completion)]
    return {in_one_line(prompts[one.prompt_id]): in_one_line(one.text) for one in completions if one.text.strip()}


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def same_letters(text: str) -> re.Pattern[str]:
    """The letters and digits of a text, whatever Markdown made of the rest."""
    return re.compile("[^0-9A-Za-z]*".join(re.findall("[0-9A-Za-z]", text)))


def save(page: Page, name: str, *, start: float = 0, end: float) -> None:
    """Keep what stands between two heights of a page."""
    if SCREENSHOTS:
        assert page.viewport_size is not None
        clip: FloatRect = {"x": 0, "y": start, "width": page.viewport_size["width"], "height": end - start}
        page.screenshot(path=Path(SCREENSHOTS) / name, full_page=True, clip=clip)


def box(shown: Locator) -> FloatRect:
    """Where an element stands on its page."""
    found = shown.bounding_box()
    assert found is not None
    return found


def run_row(page: Page, run_id: str) -> Locator:
    return page.locator(f"[role=row][row-id='{run_id}']").filter(has=page.get_by_role("link"))


def test_the_list_of_runs_folds_a_sweeps_jobs_under_their_parent(page: Page, shown: Shown):
    page.goto(f"{shown.address}/runs")
    parent = run_row(page, shown.parent)
    expect(parent).to_contain_text("sweep of")
    jobs = job_ids(shown.folder)
    for job in jobs:
        expect(run_row(page, job)).to_have_count(0)
    parent.get_by_role("button").first.click()
    for job in jobs:
        expect(run_row(page, job)).to_contain_text(" static ")


def test_the_printed_link_shows_the_jobs_side_by_side_with_what_was_swept_and_what_came_out(page: Page, shown: Shown):
    page.goto(shown.jobs)
    jobs = job_ids(shown.folder)
    for job in jobs:
        expect(run_row(page, job)).to_be_visible()
    expect(run_row(page, shown.parent)).to_have_count(0)
    for column in ("params.`batch.size`", "metrics.`prompts_per_s`", "metrics.`exact_match_ratio`"):
        expect(page.locator(f'[role=columnheader][col-id="{column}"]')).to_be_visible()
    expect(page.get_by_text(f"{len(jobs)} matching runs")).to_be_visible()
    last = max((box(run_row(page, job)) for job in jobs), key=lambda row: row["y"])
    save(page, "mlflow.png", end=last["y"] + 2 * last["height"])


def test_the_charts_of_the_printed_link_are_of_the_main_metrics_and_of_every_job(page: Page, shown: Shown):
    page.goto(f"{shown.jobs}&compareRunsMode=CHART")
    for name in ("prompts_per_s", "speedup", "exact_match_ratio"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    bars = page.locator(".js-plotly-plot").first.locator(".barlayer .point")
    expect(bars).to_have_count(len(job_ids(shown.folder)))


def test_an_experiment_opens_on_its_runs_with_the_switch_that_links_carry(page: Page, shown: Shown):
    switch = tracked_parent(shown.folder).runs_page.partition("?")[2]
    page.goto(f"{shown.address}?{switch}")
    expect(run_row(page, shown.parent)).to_be_visible()


def test_throughput_by_batch_size_is_drawn_with_a_point_for_each_size(page: Page, shown: Shown):
    page.goto(shown.run(shown.parent, "/model-metrics"))
    page.get_by_placeholder("Search metric charts").fill(THROUGHPUT)
    runs = compared(shown.folder)["runs"]
    sizes = {run["settings"]["batch.size"] for run in runs}
    charts = page.locator(".js-plotly-plot")
    expect(charts).to_have_count(len(runs) // len(sizes))
    for chart in charts.all():
        expect(chart.locator(".scatterlayer .point")).to_have_count(len(sizes))


def test_the_chart_view_of_the_experiment_has_throughput_by_batch_size(page: Page, shown: Shown):
    page.goto(f"{shown.address}/runs?compareRunsMode=CHART")
    page.get_by_placeholder("Search metric charts").fill(THROUGHPUT)
    expect(page.locator(".js-plotly-plot .scatterlayer .point").first).to_be_visible()


def test_a_jobs_answers_are_a_table_of_prompts_and_texts(page: Page, shown: Shown):
    prompt = in_one_line(next(iter(RunFolder(shown.child()).read_prompts())).messages[-1].content)
    page.goto(shown.child_page("/artifacts/outputs.json"))
    row = page.get_by_role("row").filter(has=page.get_by_role("cell", name=prompt, exact=True))
    expect(row).to_contain_text(answers(shown.child())[prompt])


def test_the_parents_picture_of_throughput_is_shown(page: Page, shown: Shown):
    page.goto(shown.run(shown.parent, "/artifacts/plots/throughput.png"))
    picture = page.get_by_alt_text("plots/throughput.png")
    expect(picture).to_be_visible()
    expect(picture).not_to_have_js_property("naturalWidth", 0)


def test_the_parents_description_is_the_comparison(page: Page, shown: Shown):
    page.goto(shown.run(shown.parent))
    description = page.get_by_test_id("note-editor-preview-content")
    expect(description).to_contain_text("Divergence from the reference")
    page.get_by_text("Show more").click()
    expect(description.get_by_role("cell", name="reference", exact=True)).to_be_visible()
    expect(description.get_by_text("Reference: run 0")).to_be_visible()
    for run in compared(shown.folder)["runs"]:
        expect(page.locator(f"a[href$='{run['mlflow_run_id']}']")).to_be_visible()


def test_a_trace_has_prompt_and_answer(page: Page, shown: Shown):
    prompt, answer = next(iter(answers(shown.child()).items()))
    page.goto(shown.child_page("/traces"))
    row = page.get_by_role("row").filter(has_text=prompt[:40]).first
    expect(row).to_contain_text(answer[:20])
    row.get_by_text(prompt[:40]).first.click()
    trace = page.get_by_role("dialog")
    expect(trace.get_by_text("User", exact=True)).to_be_visible()
    expect(trace.get_by_text("Assistant", exact=True)).to_be_visible()
    expect(trace).to_contain_text(same_letters(prompt[:150]))
    expect(trace).to_contain_text(same_letters(answer[:150]))


def test_the_page_of_a_comparison_marks_what_differs_and_asks_for_nothing(page: Page, sweep: Path):
    assert any(one["texts"]["differing"] for one in compared(sweep)["compared"])
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_viewport_size({"width": 1200, "height": 900})
    page.goto((sweep / "comparison.html").as_uri())
    marked = page.locator("article .text mark")
    expect(marked.first).to_be_visible()
    assert re.search(r"\S", marked.first.inner_text())
    for picture in page.locator("#pictures svg").all():
        expect(picture).to_be_visible()
    start, last = box(page.locator("#texts")), box(page.locator("#texts article").nth(1))
    save(page, "comparison.png", start=start["y"], end=last["y"] + last["height"])
    assert {url for url in asked if not url.startswith("data:")} == {(sweep / "comparison.html").as_uri()}
    assert not said
