"""The Markdown note of a sweep: short enough for MLflow, and free of markup from names and texts."""

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from runner.comparison.compare import compare_folders
from runner.comparison.present.markdown import markdown_note
from runner.comparison.present.tables import speed_table
from runner.text import escape_markdown, one_line
from tests.comparison.helpers import Write, sentences


def test_a_note_of_many_runs_keeps_its_alarms_and_says_how_many_rows_it_leaves_out(write_run: Write):
    wrong = sentences(8) | {"0": sentences(8)["1"], "1": sentences(8)["0"]}
    runs = [write_run(f"r{n}", wrong if n else sentences(8), f"batch.size={n + 1}") for n in range(60)]
    note = markdown_note(compare_folders(runs))
    assert len(note) < 8000, "what MLflow keeps of a tag"
    assert note.startswith("**ALARM** run r1: the text of 2 prompts is exactly another")
    assert len(re.findall(r"\n\d+ more rows: see comparison\.html\n", note)) == 2, "of both tables"


MARKUP = "<img src=x>|*a* _b_ `c` [d](e) ~~f~~ &lt; &amp; $g$ #h! \\i"


def test_names_and_settings_are_no_markup_no_cell_and_no_tag(write_run: Write):
    quoted, label = MARKUP.replace("\\", "\\\\"), "<img>|*a* `$_b_[c]"
    runs = [write_run(label, sentences(2), f"model.id='{quoted}'", "batch.size=1"), write_run("b", sentences(2))]
    comparison = compare_folders(runs)
    note = markdown_note(comparison)
    assert "<" not in note, "MLflow's renderer honours no backslash before a tag"
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(note)
    tags = {"p", "strong", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert set(re.findall(r"</?(\w+)", html)) == tags
    cells = [unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", html.partition("</table>")[0])]
    assert cells == [cell.strip() for row in speed_table(comparison).rows for cell in row]
    assert label in cells


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Zs"]) | st.sampled_from(MARKUP), max_size=30))
def test_escaped_text_is_rendered_as_itself(text: str):
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"a {escape_markdown(text)} z")
    assert unescape(rendered) == f"<p>a {one_line(text)} z</p>\n"
