"""The first sentence of a comparison: which configuration is the fastest, where the repeats show one."""

from collections.abc import Sequence

from runner.comparison import speed
from runner.comparison.compare import Comparison
from runner.comparison.machine_notes import max_other_share
from runner.comparison.present.figures import percentage, speedup
from runner.comparison.present.settings import setting_columns
from runner.comparison.speed import Row
from runner.text import rate

_MAX_NAMED = 3
"""Rows that the headline names."""
_MAX_LENGTH_CHANGE = 0.05
"""Change of the output length from which the sentence has output tokens/s beside prompts/s."""


def headline(comparison: Comparison) -> str | None:
    """Return what an engineer would sign: a winner beyond noise, those that cannot be told apart, or the highest rate.

    Only complete rows with one request are ranked. A winner needs an interval, and an interval needs repeats.
    """
    rows = _ranked(comparison.rows)
    if len(rows) < 2:
        return None
    first, *others = sorted(rows, key=_rate, reverse=True)
    apart = speed.told_apart(first, others, speed.RATE)
    if min(_counts(rows)) < speed.MIN_BLOCKS:
        sentence = _without_interval(comparison, first, others)
    elif all(apart):
        sentence = f"Fastest: {_described(comparison, first)}, {_figures(comparison, first)}"
    else:
        alike = [first, *(row for row, is_apart in zip(others, apart, strict=True) if not is_apart)]
        sentence = (
            f"No fastest: {_joined(comparison, alike)} cannot be told apart in {min(_counts(rows))} repeats (95 %); "
            f"the highest rate, of run {first.label}, is {_figures(comparison, first)}"
        )
    return sentence + _lengths(rows) + _not_ranked(comparison, first) + _others(rows)


def _without_interval(comparison: Comparison, first: Row, others: Sequence[Row]) -> str:
    if all(_rate(row) == _rate(first) for row in others):
        return f"The same rate: {_joined(comparison, [first, *others])}, {rate(_rate(first))} prompts/s each"
    fewest, most = min(counts := _counts([first, *others])), max(counts)
    measured = f"{fewest} to {most} times" if fewest < most else "once each" if most == 1 else f"{most} times each"
    return (
        f"Measured {measured}, so nothing is called faster: the highest rate is that of "
        f"{_described(comparison, first)}, {_figures(comparison, first)}; repeat={speed.MIN_BLOCKS} or more gives an "
        "interval"
    )


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Return the complete rows; none where they have different requests, whose rates are those of different jobs."""
    complete = [row for row in rows if row.is_complete and speed.RATE in row.figures]
    return complete if len({row.request for row in complete}) == 1 else []


def _rate(row: Row) -> float:
    return row.figures[speed.RATE].median


def _counts(rows: Sequence[Row]) -> list[int]:
    return [row.figures[speed.RATE].count for row in rows]


def _lengths(rows: Sequence[Row]) -> str:
    """Return the range of answer lengths where it is wide: prompts/s and tokens/s may then rank differently."""
    measured = [row.figures[speed.THROUGHPUT].median / _rate(row) for row in rows if speed.THROUGHPUT in row.figures]
    if not measured or max(measured) <= (1 + _MAX_LENGTH_CHANGE) * min(measured):
        return ""
    return f"; answers have {min(measured):,.1f} to {max(measured):,.1f} output tokens per prompt"


def _not_ranked(comparison: Comparison, first: Row) -> str:
    """Name the rows of the same request that are not ranked: a fastest is the fastest of the others."""
    rows = [row for row in comparison.rows if row.request == first.request and not row.is_complete]
    named = [f"run {row.label} ({_status(row)})" for row in rows[:_MAX_NAMED]]
    more = [f"{len(rows) - len(named)} more"] if len(rows) > len(named) else []
    return f"; not ranked: {', '.join([*named, *more])}" if rows else ""


def _status(row: Row) -> str:
    """Return how a row's runs ended; of failed prompts, how many of how many."""
    failed, completed = (
        sum(run.metrics.get(name, 0.0) for run in row.runs) for name in ("failed_prompts", "completed_prompts")
    )
    return f"{failed:.0f} of {failed + completed:.0f} prompts failed" if failed else row.status


def _others(rows: Sequence[Row]) -> str:
    """Say where other processes were busy: a difference of speed may then be theirs."""
    share = max_other_share([run for row in rows for run in row.runs])
    return "" if share is None else f"; other processes took up to {share:.0%} of the CPUs meanwhile"


def _figures(comparison: Comparison, row: Row) -> str:
    """Return rate, speed-up with its interval, tokens/s where lengths differ, and how many texts are equal."""
    parts = [f"{rate(_rate(row))} prompts/s"]
    if row.speedup and row.reference:
        parts.append(f"{speedup(row)} run {_row_label(comparison, row.reference)}'s")
        ratio = row.speedup.output_tokens_ratio
        if ratio and abs(ratio / row.speedup.ratio - 1) > _MAX_LENGTH_CHANGE:
            parts.append(f"{ratio:.2f}x its output tokens/s")
    text = ", ".join(parts)
    if row.reference and (matches := comparison.exact_matches(row)):
        shares = " to ".join(dict.fromkeys(percentage(share) for share in (min(matches), max(matches))))
        reference = _row_label(comparison, row.reference)
        text += f"; {shares} of {comparison.compared_texts(row)} answers are run {reference}'s to the letter"
    return text


def _row_label(comparison: Comparison, run: str) -> str:
    """Return the label of the row that a run is in, as the tables have it."""
    return next((row.label for row in comparison.rows if run in [member.label for member in row.runs]), run)


def _described(comparison: Comparison, row: Row) -> str:
    settings = ", ".join(f"{name} {value}" for name, (value,) in setting_columns(comparison.runs, row.runs[:1]))
    return f"run {row.label} ({settings})"


def _joined(comparison: Comparison, rows: Sequence[Row]) -> str:
    described = [_described(comparison, row) for row in rows[:_MAX_NAMED]]
    more = len(rows) - len(described)
    last = f"{more} more" if more else described.pop()
    return f"{', '.join(described)} and {last}"
