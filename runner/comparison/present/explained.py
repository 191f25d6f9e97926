"""Explanations of differences as columns of tables and as plain data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runner.comparison.explain import ExplainedDifference, Explanation, size_of
from runner.comparison.pairing import ComparedPair
from runner.comparison.present.settings import MISSING, Column

MAX_ROWS = 10
"""Differences in a table of the terminal or of a note; the page has all."""
_NO_COLUMNS: tuple[list[Column], list[Column]] = ([], [])


def summary_columns(compared: Sequence[ComparedPair]) -> tuple[list[Column], list[Column]]:
    """Return columns of texts and of figures with a row per explained run; none where none is explained."""
    entries = [(entry, entry.explanation) for entry in compared if entry.explanation and entry.explanation.explained]
    if not entries:
        return _NO_COLUMNS
    explanations = [explanation for _, explanation in entries]
    bounds = [explanation.bound for explanation in explanations]
    texts = [
        ("run", [entry.pair.run.label for entry, _ in entries]),
        ("vs", [entry.pair.reference.label for entry, _ in entries]),
    ]
    return texts, [
        ("differences", [f"{explanation.differences:,}" for explanation in explanations]),
        ("measured", [f"{len(explanation.explained):,}" for explanation in explanations]),
        ("near-ties", [f"{explanation.near_ties:,}" for explanation in explanations]),
        ("unexplained", [f"{len(explanation.unexplained):,}" for explanation in explanations]),
        ("largest margin", [_logits(explanation.max_margin) for explanation in explanations]),
        ("noise bound", [_logits(bound.max_change if bound else None) for bound in bounds]),
        ("positions", [f"{bound.positions:,}" if bound else MISSING for bound in bounds]),
        ("copies", [f"{bound.copies:,}" if bound else MISSING for bound in bounds]),
    ]


def difference_columns(compared: Sequence[ComparedPair], *, max_rows: int) -> tuple[list[Column], list[Column]]:
    """Return columns with a row per explained difference, the largest margin first; `max_rows` 0 returns all rows."""
    rows = sorted(_differences(compared), key=lambda row: (row[2].is_near_tie, -size_of(row[2].margin)))
    rows = rows[:max_rows] if max_rows else rows
    if not rows:
        return _NO_COLUMNS
    differences = [entry.difference for _, _, entry in rows]
    texts = [
        ("run", [compared.pair.run.label for compared, _, _ in rows]),
        ("prompt", [_printable(difference.prompt_id) for difference in differences]),
        ("reference's", [_token(entry.difference.reference_token, entry.reference_text) for _, _, entry in rows]),
        ("run's", [_token(entry.difference.run_token, entry.run_text) for _, _, entry in rows]),
        ("verdict", ["near-tie" if entry.is_near_tie else "unexplained" for _, _, entry in rows]),
    ]
    bounds = [explanation.bound for _, explanation, _ in rows]
    return texts, [
        ("margin", [MISSING if entry.margin is None else f"{entry.margin:+.3g}" for _, _, entry in rows]),
        ("bound", [_logits(bound.max_change if bound else None) for bound in bounds]),
        ("at token", [f"{difference.position:,}" for difference in differences]),
    ]


def explanation_data(explanation: Explanation) -> Mapping[str, Any]:
    """Return an explanation with every margin, as JSON values; what was not measured is absent."""
    values = {
        "differences": explanation.differences,
        "explained": len(explanation.explained),
        "without_token_ids": explanation.without_ids,
        "near_ties": explanation.near_ties if explanation.explained else None,
        "unexplained": len(explanation.unexplained) if explanation.explained else None,
        "noise_bound": asdict(explanation.bound) if explanation.bound else None,
        "measured_with": dict(explanation.measured_with) if explanation.measured_with else None,
        "reason": explanation.reason,
        "margins": [_margin(entry) for entry in explanation.explained] or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _margin(entry: ExplainedDifference) -> Mapping[str, Any]:
    difference = entry.difference
    values = {
        "prompt_id": difference.prompt_id,
        "position": difference.position,
        "reference_token": difference.reference_token,
        "reference_text": entry.reference_text,
        "run_token": difference.run_token,
        "run_text": entry.run_text,
        "margin": entry.margin,
        "near_tie": entry.is_near_tie,
    }
    return {name: value for name, value in values.items() if value is not None}


def _differences(
    compared: Sequence[ComparedPair],
) -> Iterator[tuple[ComparedPair, Explanation, ExplainedDifference]]:
    for entry in compared:
        if entry.explanation:
            yield from ((entry, entry.explanation, difference) for difference in entry.explanation.explained)


def _token(token: int | None, text: str) -> str:
    return "(end)" if token is None else repr(text)


def _printable(text: str) -> str:
    """Return a text with invisible characters as codes."""
    return text if text.isprintable() else repr(text)


def _logits(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}"
