"""The page shows texts as texts, and marks what differs."""

import unicodedata
from html.parser import HTMLParser
from pathlib import Path

from runner.cli import compare
from tests.comparison.helpers import Write, sentences

HOSTILE = [
    "<script>alert(1)</script>",
    "</div><img src=x onerror=alert(1)>",
    '"><iframe src="https://example.org">',
    "{{ 7 * 7 }} {% raw %}",
    "\x1b[31mred\x1b[0m \x00 \x07",
    "\u202eturned\u2066around\u2069",
    "lone \ud800 surrogate \udfff",
    "مرحبا שלום 日本語 👩‍💻",
    "<!-- --> <![CDATA[ ]]> &amp; &lt;",
]


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.marked: list[str] = []
        self._in_mark = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._in_mark |= tag == "mark"

    def handle_endtag(self, tag: str) -> None:
        self._in_mark &= tag != "mark"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_mark:
            self.marked.append(data)


def test_the_pages_texts_are_texts_whatever_they_hold(write_run: Write, tmp_path: Path):
    prompts = {f"{n} {text}": f"say {text}" for n, text in enumerate(HOSTILE)}
    reference = write_run("a", dict.fromkeys(prompts, "the same"), "batch.size=1", prompts=prompts)
    run = write_run("b", {name: f"the {name}" for name in prompts}, prompts=prompts)
    compare.main([str(reference), str(run), "--output", str(tmp_path / "out")])
    source = (tmp_path / "out" / "comparison.html").read_bytes().decode("utf-8")
    page = Page(source)
    assert not {"script", "iframe", "link", "object", "embed", "base", "form"} & set(page.tags)
    assert "img" not in page.tags
    assert page.tags.count("svg") == page.tags.count("figure") > 0
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert {name for name, _ in page.attributes if name in ("src", "href", "srcset")} == set()
    assert {value[0] for name, value in page.attributes if name == "xlink:href" and value} == {"#"}
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }} {% raw %}" in page.text
    for spelled in ("U+001B", "U+0000", "U+202E", "U+D800"):
        assert spelled in page.text
    hidden = {char for char in source if unicodedata.category(char) in ("Cc", "Cf", "Cs")}
    assert hidden <= {"\n", "\u200d"}
    assert "default-src 'none'" in source
    assert any("script" in part for part in page.marked)


def test_the_part_that_differs_is_marked_and_nothing_else(write_run: Write, tmp_path: Path):
    one, two = "It is a truth universally known", "It is a truth widely known"
    runs = [write_run("a", {"p": one}, "batch.size=1"), write_run("b", {"p": two})]
    compare.main([*map(str, runs), "--output", str(tmp_path / "out")])
    page = Page((tmp_path / "out" / "comparison.html").read_text(encoding="utf-8"))
    assert page.marked == ["universal", "wide"]


def test_a_joiner_and_a_blank_that_differ_are_seen(write_run: Write, tmp_path: Path):
    runs = [
        write_run("a", {"p": "10 km, \U0001f469\U0001f4bb"}, "batch.size=1"),
        write_run("b", {"p": "10\u00a0km, \U0001f469\u200d\U0001f4bb"}),
    ]
    compare.main([*map(str, runs), "--output", str(tmp_path / "out")])
    marked = Page((tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")).marked
    assert {"U+00A0", "U+200D"} <= set(marked)


def test_the_page_calls_an_alarm_an_alarm(write_run: Write, tmp_path: Path):
    texts = sentences(8)
    runs = [write_run("a", texts, "batch.size=1"), write_run("b", texts | {"0": texts["1"], "1": texts["0"]})]
    compare.main([*map(str, runs), "--output", str(tmp_path / "out")])
    assert "ALARM: run b" in Page((tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")).text


def test_the_page_says_how_many_texts_differ_and_shows_the_most_different(write_run: Write, tmp_path: Path):
    runs = [write_run("a", sentences(80), "batch.size=1"), write_run("b", sentences(80, other_from=0))]
    compare.main([*map(str, runs), "--output", str(tmp_path / "out")])
    source = (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    assert "50 of 80 that differ" in source
    assert source.count("<article>") == 50
