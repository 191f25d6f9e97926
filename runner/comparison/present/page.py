"""The page `comparison.html`: tables, notes, pictures and the texts that differ, in one file that asks for nothing.

Whatever stands in a prompt or an answer is shown as text: the template escapes everything, what is invisible or would
turn the page around is spelled out, and the page's own policy forbids scripts and requests.
"""

import base64
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from rapidfuzz.distance import Prefix

from runner.comparison.compare import Compared, Comparison
from runner.comparison.divergence import Example
from runner.comparison.load import prompt_texts
from runner.comparison.present import tables
from runner.comparison.present.plots import Picture

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_LONGEST = 20_000
"""Characters of a text that the page shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a text: `plain`, `marked` (it differs) or `code` (a character that would not be seen, spelled out)."""

    kind: Literal["plain", "code"]
    marked: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """A prompt with two answers to it."""

    name: str
    prompt: Sequence[Piece]
    reference: Sequence[Piece]
    run: Sequence[Piece]
    character: int
    similarity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The texts of one run that differ from its reference's; some of `count`."""

    run: str
    reference: str
    settings: str
    count: int
    examples: Sequence[SideBySide]


def render(comparison: Comparison, pictures: Sequence[Picture], *, title: str) -> str:
    """Return the page. It is valid UTF-8 whatever the texts hold."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=visible(title),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        headline=tables.headline(comparison),
        speed=tables.speed_table(comparison, width=0),
        texts=tables.text_tables(comparison, width=0),
        alarms=[note.text for note in comparison.notes if note.level == "alarm"],
        notes=[note.text for note in comparison.notes if note.level == "note"],
        pictures=[(picture, _data_uri(picture.png)) for picture in pictures if picture.png],
        undrawn=[picture for picture in pictures if not picture.png],
        sections=[_section(comparison, one) for one in comparison.compared if one.texts and one.texts.differing],
        finish=_finish_changes(comparison),
        folders=[(run.label, visible(str(run.folder))) for run in comparison.runs],
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def side_by_side(example: Example, prompt: str) -> SideBySide:
    """Return two answers with the part that differs marked: what stands between their common beginning and end."""
    start, end = example.character, _common_end(example)
    number = f" (answer {example.key[1]})" if example.key[1] else ""
    return SideBySide(
        name=visible(example.key[0]) + number,
        prompt=_pieces(prompt, len(prompt), len(prompt)),
        reference=_pieces(example.reference, start, len(example.reference) - end),
        run=_pieces(example.text, start, len(example.text) - end),
        character=example.character,
        similarity=f"{example.similarity:.0%}",
    )


def visible(text: str) -> str:
    """Return a text in one piece, with what would not be seen spelled out."""
    return "".join(piece.text for piece in _pieces(text, len(text), len(text)))


def _section(comparison: Comparison, one: Compared) -> Section:
    texts, run = one.texts, one.pair.run
    assert texts is not None  # noqa: S101 - render() asks for no other
    prompts = prompt_texts(one.pair.reference, {example.key[0] for example in texts.examples})
    return Section(
        run=run.label,
        reference=one.pair.reference.label,
        settings=f"{tables.series(comparison)[run.label]}, batch.size={run.settings.get('batch.size')}",
        count=texts.differing,
        examples=[side_by_side(example, prompts.get(example.key[0], "")) for example in texts.examples],
    )


def _finish_changes(comparison: Comparison) -> Sequence[Mapping[str, str | int]]:
    return [
        {
            "run": one.pair.run.label,
            "reference": one.pair.reference.label,
            "before": before,
            "after": after,
            "count": count,
        }
        for one in comparison.compared
        if one.texts
        for (before, after), count in one.texts.finish_reasons.items()
    ]


def _common_end(example: Example) -> int:
    """Return how many characters both texts end with, beyond those that they begin with."""
    room = min(len(example.reference), len(example.text)) - example.character
    return min(room, int(Prefix.similarity(example.reference[::-1], example.text[::-1])))


def _pieces(text: str, start: int, end: int) -> list[Piece]:
    """Cut a text into what is plain and what is not; characters `start` to `end` are marked."""
    pieces: list[Piece] = []
    for marked, part in ((False, text[:start]), (True, text[start:end]), (False, text[end:])):
        pieces += _spell_out(part[:_LONGEST], marked=marked)
        if len(part) > _LONGEST:
            pieces.append(Piece(kind="code", marked=marked, text=f"… {len(part) - _LONGEST:,} more characters"))
    return pieces


def _spell_out(text: str, *, marked: bool) -> list[Piece]:
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
    """Return how to show a character that is not seen, or that does something to what stands around it."""
    if char in "\n\t":
        return {"\n": "↵", "\t": "⇥"}[char] if marked else None
    if char in "\u200c\u200d" and not marked:  # joiners: parts of words and of emoji
        return None
    if marked and char != " " and unicodedata.category(char) == "Zs":  # blanks that look like one another
        return f"U+{ord(char):04X}"
    is_hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") or ord(char) & 0xFFFE == 0xFFFE
    return f"U+{ord(char):04X}" if is_hidden else None


def _data_uri(png: bytes | None) -> str:
    return f"data:image/png;base64,{base64.b64encode(png or b'').decode('ascii')}"
