"""Texts of runs, and what tests read of a comparison."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.comparison.compare import Comparison
from runner.comparison.divergence import Divergence

Texts = dict[str, str]
Write = Callable[..., Path]


def only_divergence(comparison: Comparison) -> Divergence:
    (compared,) = comparison.compared
    assert compared.divergence is not None
    return compared.divergence


def alarms(comparison: Comparison) -> str:
    return "\n".join(note.text for note in comparison.notes if note.level == "alarm")


def note_texts(comparison: Comparison) -> str:
    return "\n".join(note.text for note in comparison.notes)


def sentences(count: int, *, other_from: int | None = None) -> Texts:
    """Texts of twelve distinct words; from `other_from` on, texts have other words behind the fourth."""
    texts = {}
    for number in range(count):
        text = [f"w{number}x{word}" for word in range(12)]
        if other_from is not None and number >= other_from:
            text[4:] = [f"v{number}x{word}" for word in range(9)]
        texts[str(number)] = " ".join(text)
    return texts


def levenshtein(first: str, second: str) -> int:
    """The textbook's table, row by row."""
    row = list(range(len(second) + 1))
    for index, char in enumerate(first, 1):
        above, row = row, [index]
        for column, other in enumerate(second, 1):
            row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + (char != other)))
    return row[-1]


def first_difference(first: Sequence[Any], second: Sequence[Any]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(first), len(second)))


def median_first_difference(parted: list[int], lengths: list[int]) -> float | None:
    """The textbook's product, position by position: a pair of equal texts is under observation to its end."""
    left = 1.0
    for position in range(max([*parted, *lengths], default=0) + 1):
        observed = sum(at >= position for at in parted) + sum(length > position for length in lengths)
        left *= 1 - parted.count(position) / observed if observed else 1
        if left <= 0.5 + 1e-9:
            return position
    return None


def middle(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def contrast(first: str, second: str) -> float:
    """The contrast of two colours, `#rrggbb` or `rgb(r, g, b)`: WCAG 2.2."""
    dark, light = sorted((_luminance(first), _luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = re.findall("[0-9a-f]{2}", colour) if colour.startswith("#") else re.findall(r"\d+", colour)[:3]
    values = [int(channel, 16 if colour.startswith("#") else 10) / 255 for channel in channels]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
