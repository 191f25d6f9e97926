"""The page `comparison.html`: tables, notes, pictures and the texts that differ, in one file without requests.

Prompts and texts are shown as text: the template escapes all markup, characters that are invisible or change the
direction of writing are replaced by their code, and the content security policy forbids scripts and requests.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from rapidfuzz.distance import Prefix

from runner.comparison.compare import Comparison
from runner.comparison.divergence import Example
from runner.comparison.load import prompt_texts
from runner.comparison.present.headline import headline
from runner.comparison.present.plots.plot import Picture
from runner.comparison.present.sections import SECTIONS
from runner.comparison.present.settings import series
from runner.comparison.present.tables import Table
from runner.text import percentage

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_MAX_CHARS = 20_000
"""Characters of a part of a text that the page shows."""
_TIERS_REM = tuple(range(12, 77, 4))
"""Widths of tables, in units of the page's font size. A page that is narrower than a table shows it row by row."""
_MAX_ROWS = 20
"""Rows of a table; one with more is folded, unless it is the first of its section."""
_CHAR_REM, _GAP_REM = 0.54, 1.2
"""Width of a character, and of the space between two columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a text: `plain`, or the `code` of an invisible character. A `marked` part differs."""

    kind: Literal["plain", "code"]
    marked: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """A prompt with the texts of reference and run."""

    name: str
    prompt: Sequence[Piece]
    reference: Sequence[Piece]
    run: Sequence[Piece]
    character: int
    similarity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferentTexts:
    """Examples among the `count` texts of a run that differ from its reference's."""

    run: str
    reference: str
    settings: str
    count: int
    examples: Sequence[SideBySide]


def render(comparison: Comparison, pictures: Sequence[Picture], *, title: str) -> str:
    """Return the page. Lone surrogates are replaced, so that the page is valid UTF-8."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=visible(title),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        headline=headline(comparison),
        sections=[section for make in SECTIONS if (section := make(comparison))],
        tiers=_TIERS_REM,
        tier=_tier_rem,
        max_rows=_MAX_ROWS,
        alarms=[note.text for note in comparison.notes if note.level == "alarm"],
        notes=[note.text for note in comparison.notes if note.level == "note"],
        pictures=[picture for picture in pictures if picture.svg],
        undrawn=[picture for picture in pictures if not picture.svg],
        different_texts=_different_texts(comparison),
        finish=_finish_changes(comparison),
        folders=[(run.label, visible(str(run.folder.path))) for run in comparison.runs],
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def _tier_rem(table: Table) -> int:
    """Return the width that a table needs as a tier; the widest tier is wider than every page."""
    columns = zip(table.columns, *table.rows, strict=True)
    width = sum(max(map(_char_width, cells)) * _CHAR_REM + _GAP_REM for cells in columns)
    return next((tier for tier in _TIERS_REM if tier >= width), _TIERS_REM[-1])


def _char_width(text: str) -> int:
    """Return a text's width in characters: those of East Asia are two wide."""
    return sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def side_by_side(example: Example, prompt: str) -> SideBySide:
    """Return two texts with the part between their common beginning and their common end marked."""
    start, end = example.character, _common_end(example)
    number = f" (answer {example.key[1]})" if example.key[1] else ""
    return SideBySide(
        name=visible(example.key[0]) + number,
        prompt=_pieces(prompt, len(prompt), len(prompt)),
        reference=_pieces(example.reference, start, len(example.reference) - end),
        run=_pieces(example.text, start, len(example.text) - end),
        character=example.character,
        similarity=percentage(example.similarity),
    )


def visible(text: str) -> str:
    """Return a text with invisible characters replaced by their codes."""
    return "".join(piece.text for piece in _pieces(text, len(text), len(text)))


def _different_texts(comparison: Comparison) -> list[DifferentTexts]:
    names = series(comparison.runs)
    sections = []
    for compared in comparison.compared:
        divergence, run, reference = compared.divergence, compared.pair.run, compared.pair.reference
        if divergence is None or not divergence.differing:
            continue
        prompts = prompt_texts(reference, {example.key[0] for example in divergence.examples})
        section = DifferentTexts(
            run=run.label,
            reference=reference.label,
            settings=f"{names[run.label]}, batch.size={run.settings.get('batch.size')}",
            count=divergence.differing,
            examples=[side_by_side(example, prompts.get(example.key[0], "")) for example in divergence.examples],
        )
        sections.append(section)
    return sections


def _finish_changes(comparison: Comparison) -> Sequence[Mapping[str, str | int]]:
    return [
        {
            "run": compared.pair.run.label,
            "reference": compared.pair.reference.label,
            "before": before,
            "after": after,
            "count": count,
        }
        for compared in comparison.compared
        if compared.divergence
        for (before, after), count in compared.divergence.finish_reasons.items()
    ]


def _common_end(example: Example) -> int:
    """Return the length of the common end, the common beginning excluded."""
    behind_start = min(len(example.reference), len(example.text)) - example.character
    return min(behind_start, int(Prefix.similarity(example.reference[::-1], example.text[::-1])))


def _pieces(text: str, start: int, end: int) -> list[Piece]:
    """Split a text into pieces; the characters from `start` to `end` are marked."""
    pieces: list[Piece] = []
    for marked, part in ((False, text[:start]), (True, text[start:end]), (False, text[end:])):
        pieces += _with_codes(part[:_MAX_CHARS], marked=marked)
        if len(part) > _MAX_CHARS:
            pieces.append(Piece(kind="code", marked=marked, text=f"… {len(part) - _MAX_CHARS:,} more characters"))
    return pieces


def _with_codes(text: str, *, marked: bool) -> list[Piece]:
    pieces, plain = [], ""
    for char in text:
        code = _code(char, marked=marked)
        if code is None:
            plain += char
            continue
        if plain:
            pieces.append(Piece(kind="plain", marked=marked, text=plain))
            plain = ""
        pieces.append(Piece(kind="code", marked=marked, text=code))
        if char == "\n":
            plain = char
    return [*pieces, Piece(kind="plain", marked=marked, text=plain)] if plain else pieces


def _code(char: str, *, marked: bool) -> str | None:
    """Return the code of a character that is invisible or changes how its neighbours look; None for any other."""
    if char in "\n\t":
        return {"\n": "↵", "\t": "⇥"}[char] if marked else None
    if char in "\u200c\u200d" and not marked:  # joiners: parts of words and of emoji
        return None
    if marked and char != " " and unicodedata.category(char) == "Zs":  # blanks that look like one another
        return f"U+{ord(char):04X}"
    is_hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") or ord(char) & 0xFFFE == 0xFFFE
    return f"U+{ord(char):04X}" if is_hidden else None
