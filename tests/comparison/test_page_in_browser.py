"""The page can be read at the width of a desk and of a phone, on light and on dark ground. A browser measures it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from runner.cli import compare
from tests.browser import chromium
from tests.comparison.helpers import Write, contrast, sentences

METRICS = {
    "completed_prompts": 1000.0, "failed_prompts": 24.0, "output_tokens": 64000.0, "input_tokens": 90000.0, "duration_s": 123.4567,
    "output_tokens_per_s": 123456.7, "prompts_per_s": 1234.5, "latency_samples": 1000.0, "latency_p50_s": 123.45,
    "latency_p90_s": 150.3, "latency_p95_s": 234.5, "latency_p99_s": 345.6, "time_to_first_token_p50_s": 0.012,
    "time_to_first_token_p95_s": 0.34, "prompt_padding_ratio": 0.5, "tail_wait_ratio": 0.5, "cost_usd": 1.0,
    "prefill_s": 20.0, "decode_s": 90.0,
}  # fmt: skip
MEASURE = """
() => ({
  width: document.documentElement.clientWidth,
  page: document.documentElement.scrollWidth,
  tables: [...document.querySelectorAll('table')].map(table => Math.max(
    table.getBoundingClientRect().right, ...[...table.querySelectorAll('td')].map(cell => cell.getBoundingClientRect().right))),
  scrolling: [...document.querySelectorAll('.scroll')].filter(part => part.scrollWidth > part.clientWidth).length,
  unnamed: [...document.querySelectorAll('td')].filter(cell => cell.offsetParent
    && cell.closest('table').querySelector('thead').offsetParent === null
    && !getComputedStyle(cell, '::before').content.includes(cell.dataset.head)).length,
  svg: [...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().right),
  ink: getComputedStyle(document.body).color,
  ground: getComputedStyle(document.body).backgroundColor,
  soft: getComputedStyle(document.querySelector('figcaption')).color,
  letters: [...new Set([...document.querySelectorAll('svg text')].map(text => getComputedStyle(text).fill))],
})
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page_of_a_wide_comparison(write_run: Write, tmp_path: Path) -> Path:
    """Long names, many swept keys, every column and every interval."""
    runs = [
        write_run(f"2026-01-0{n}_abcdef", sentences(20, other_from=n * 3), f"batch.size={4**n}",
                  f"model.id=a-quite-long/model-name-{n // 3}-instruct", f"provider.latency_s={n / 7}",
                  f"batch.order={'length' if n % 2 else 'given'}", f"limits.timeout_s={n}00",
                  metrics={name: value * n for name, value in METRICS.items()})
        for n in range(1, 5)
    ]  # fmt: skip
    compare.main([*map(str, runs), "--output", str(tmp_path / "out")])
    return tmp_path / "out" / "comparison.html"


def measure(browser: Browser, page: Path, width: int, scheme: Any) -> Any:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        opened = context.new_page()
        opened.goto(page.as_uri())
        return opened.evaluate(MEASURE)
    finally:
        context.close()


def test_no_table_and_no_picture_is_wider_than_the_page(browser: Browser, page_of_a_wide_comparison: Path):
    for width in (1280, 800, 390, 320):
        seen = measure(browser, page_of_a_wide_comparison, width, "light")
        assert len(seen["tables"]) >= 4, "speed, latency, work and texts"
        assert max(seen["tables"]) <= seen["width"], f"a table is cut off at {width} px"
        assert seen["scrolling"] == 0, f"a table scrolls at {width} px"
        assert seen["page"] <= seen["width"], f"the page scrolls sideways at {width} px"
        assert max(seen["svg"]) <= seen["width"]
        assert seen["unnamed"] == 0, f"a figure stands without its column's name at {width} px"


def test_the_tables_of_a_sweep_with_repeats_are_tables_at_a_desk(browser: Browser, write_run: Write, tmp_path: Path):
    """Rows can be compared where columns have heads: figures that stand row by row are for narrow pages."""
    metrics = METRICS | {"failed_prompts": 0.0}
    runs = [
        write_run(f"{n}", sentences(99, other_from=99 - 4 * size), f"batch.size={size}", f"repeat={repeat}", metrics=metrics)
        for n, (repeat, size) in enumerate((repeat, size) for repeat in (1, 2) for size in (1, 4, 16))
    ]  # fmt: skip
    compare.main([*map(str, runs), "--output", str(tmp_path / "out")])
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.goto((tmp_path / "out" / "comparison.html").as_uri())
        heads = page.locator("thead")
        assert heads.count() >= 5
        hidden = [head.text_content() for head in heads.all() if not head.is_visible()]
        assert not hidden


def test_letters_can_be_read_on_both_grounds_in_pictures_too(browser: Browser, page_of_a_wide_comparison: Path):
    light, dark = (measure(browser, page_of_a_wide_comparison, 1280, scheme) for scheme in ("light", "dark"))
    assert light["ground"] != dark["ground"]
    for seen in (light, dark):
        assert contrast(seen["ink"], seen["ground"]) >= 7
        assert contrast(seen["soft"], seen["ground"]) >= 4.5
        assert seen["letters"] == [seen["ink"]], "the letters of a picture are the page's"
