"""A comparison as tables of texts: for the terminal (100 columns), a Markdown note and the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from runner.comparison.compare import Comparison
from runner.comparison.divergence import Divergence
from runner.comparison.first_difference import FirstDifferenceStats
from runner.comparison.noise_floor import NoiseFloor
from runner.comparison.pairing import ComparedPair
from runner.comparison.present import explained
from runner.comparison.present.figures import GROUPS, METRIC_COLUMNS, MetricColumn, failed_share, percentage, speedup
from runner.comparison.present.settings import MISSING, Column, setting_columns
from runner.comparison.speed import Row

WIDTH = 100
_PERCENTILES = ("latency", "first_token")
"""Groups of columns that are percentiles over calls."""
_SECOND_PART = "similar"
"""The column of a table of texts with which its second part on the page begins."""
_MIN_FIGURES = 3
"""Figures that a table keeps as long as it has settings to leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts; the first `text_columns` columns identify the row. `left_out` names columns without room."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, title: str, texts: Sequence[Column], figures: Sequence[Column], left_out: Sequence[str]) -> Self:
        """Return a table of columns."""
        columns = [*texts, *figures]
        return cls(
            title=title,
            columns=tuple(head for head, _ in columns),
            rows=tuple(zip(*(cells for _, cells in columns), strict=True)),
            text_columns=len(texts),
            left_out=tuple(left_out),
        )


def speed_table(comparison: Comparison, *, width: int = WIDTH) -> Table:
    """Return one row per configuration; `*` is the best of its column.

    Columns that do not fit `width` are left out, the least important first. A width of 0 has room for all.
    """
    fixed, figures = _speed_ups(comparison.rows), _metric_columns(comparison, METRIC_COLUMNS, with_interval=False)
    texts, figures, left_out = _fit(_row_texts(comparison), figures, fixed, width)
    return Table.of("Speed", texts, [*figures[:1], *fixed, *figures[1:]], left_out)


def grouped_speed_tables(comparison: Comparison) -> Iterator[Table]:
    """Yield the speed table in parts, with every column and interval; a part without figures is left out."""
    texts = _row_texts(comparison)
    for group, title in GROUPS.items():
        columns = [column for column in METRIC_COLUMNS if column.group == group]
        if group in _PERCENTILES:
            columns.sort(key=lambda column: column.name)
        figures = _metric_columns(comparison, columns, with_interval=True)
        if group == "speed":
            yield Table.of(title, texts, [*figures[:1], *_speed_ups(comparison.rows), *figures[1:]], ())
        elif figures:
            calls = _calls(comparison.rows) if group in _PERCENTILES else []
            yield Table.of(title, texts[:-1], [*calls, *figures], ())


def _row_texts(comparison: Comparison) -> list[Column]:
    """Return the columns that identify a row, and its status."""
    rows = comparison.rows
    settings = setting_columns(comparison.runs, [row.runs[0] for row in rows])
    return [("run", [row.label for row in rows]), *settings, ("status", [row.status for row in rows])]


def _metric_columns(comparison: Comparison, columns: Sequence[MetricColumn], *, with_interval: bool) -> list[Column]:
    """Return the columns of which a row has a figure."""
    rows, added = comparison.rows, comparison.metrics
    return [
        (column.head, column.cells(rows, added, with_interval=with_interval))
        for column in columns
        if any(column.name in row.figures for row in rows)
    ]


def _speed_ups(rows: Sequence[Row]) -> list[Column]:
    columns = [("speed-up", [speedup(row) for row in rows]), ("front", ["yes" if row.on_front else "" for row in rows])]
    if len({row.reference for row in rows if row.reference}) > 1:
        columns.insert(1, ("vs", [row.reference or "" for row in rows]))
    return columns


def _calls(rows: Sequence[Row]) -> list[Column]:
    """Return how many calls the percentiles are of, and the share of prompts that failed where any did."""
    columns = []
    if any("latency_samples" in row.figures for row in rows):
        counts = [row.figures.get("latency_samples") for row in rows]
        columns.append(("calls", [f"{count.median:,.0f}" if count else MISSING for count in counts]))
    failed = [failed_share(row) for row in rows]
    return [*columns, *([("failed", failed)] if any(share not in ("0%", MISSING) for share in failed) else [])]


def text_tables(comparison: Comparison, *, width: int = WIDTH) -> list[Table]:
    """Return how texts differ: a table of divergence, and one of outputs where models differ.

    Columns that do not fit `width` are left out, the last first. A width of 0 has room for all.
    """
    titles = {"divergence": "Divergence from the reference", "outputs": "Comparison of outputs (different models)"}
    tables = []
    for kind, title in titles.items():
        compared = [entry for entry in comparison.compared if entry.divergence and entry.pair.kind == kind]
        if compared:
            settings = setting_columns(comparison.runs, [entry.pair.run for entry in compared])
            texts = [("run", [entry.pair.run.label for entry in compared]), *settings]
            texts.append(("vs", [entry.pair.reference.label for entry in compared]))
            tables.append(Table.of(title, *_fit(texts, _text_figures(compared), [], width)))
    return [*tables, *_explained_tables(comparison, width)]


def grouped_text_tables(comparison: Comparison) -> Iterator[Table]:
    """Yield the tables of texts with every column: those of divergence in two parts, for which a page has room."""
    for table in text_tables(comparison, width=0):
        if _SECOND_PART not in table.columns:
            yield table
            continue
        middle, texts = table.columns.index(_SECOND_PART), table.text_columns
        yield replace(table, columns=table.columns[:middle], rows=tuple(row[:middle] for row in table.rows))
        yield replace(
            table,
            title="How alike the texts are",
            columns=(*table.columns[:texts], *table.columns[middle:]),
            rows=tuple((*row[:texts], *row[middle:]) for row in table.rows),
        )


def _explained_tables(comparison: Comparison, width: int) -> list[Table]:
    """Return the explanations of differences, and the differences: all of them where the width is 0, else a few."""
    columns = explained.summary_columns(comparison.compared)
    max_rows = 0 if width == 0 else explained.MAX_ROWS
    rows = explained.difference_columns(comparison.compared, max_rows=max_rows)
    total = sum(len(entry.explanation.explained) for entry in comparison.compared if entry.explanation)
    cut = f" ({max_rows} of {total:,}: the unexplained first, then the largest)" if 0 < max_rows < total else ""
    return [
        Table.of(title, *_fit(texts, figures, [], width))
        for title, (texts, figures) in (("Differences explained by margins", columns), (f"Margins{cut}", rows))
        if texts
    ]


def _text_figures(compared: Sequence[ComparedPair]) -> list[Column]:
    divergences = [entry.divergence for entry in compared if entry.divergence]
    unit = "/".join(sorted({divergence.unit for divergence in divergences if divergence.units})) or "token"
    firsts = {
        f"1st {unit}": [divergence.units for divergence in divergences],
        "1st char": [divergence.characters for divergence in divergences],
    }
    changes = [divergence.mean_token_change for divergence in divergences]
    rates = [_rate(divergence) for divergence in divergences]
    floors = [_floor(entry.noise_floor) for entry in compared]
    return [
        ("compared", [f"{divergence.compared:,}" for divergence in divergences]),
        ("exact", [_exact(divergence) for divergence in divergences]),
        *([("floor", floors)] if any(entry.noise_floor for entry in compared) else []),
        ("differ", [f"{divergence.differing:,}" for divergence in divergences]),
        *((head, [_median(first) for first in stats]) for head, stats in firsts.items()),
        *([("/1k tokens", rates)] if any(divergence.rate for divergence in divergences) else []),
        ("similar", [percentage(divergence.similarity) for divergence in divergences]),
        ("if differ", [percentage(divergence.similarity_of_differing) for divergence in divergences]),
        (
            "tokens",
            [MISSING if change is None else f"{change:+.1f}" if round(change, 1) else "0" for change in changes],
        ),
        ("finish", [f"{sum(divergence.finish_reasons.values()):,}" for divergence in divergences]),
        ("one side", [f"{divergence.only_reference + divergence.only_run:,}" for divergence in divergences]),
    ]


def _exact(divergence: Divergence) -> str:
    """Return the share of equal texts with its 95 % interval."""
    metrics = divergence.metrics
    if not metrics:
        return MISSING
    return _share(*(metrics[f"exact_match_ratio{end}"] for end in ("", "_low", "_high")))


def _floor(floor: NoiseFloor | None) -> str:
    """Return the share of prompts in which the reference's repeat matches it, with its 95 % interval."""
    if floor is None:
        return MISSING
    return _share(floor.repeat_matches / floor.prompts, floor.interval.low or 0.0, floor.interval.high or 1.0)


def _share(share: float, low: float, high: float) -> str:
    """Return a share with its interval in whole percents: nothing but 100 % is rounded to it."""
    ends = [">99" if 0.995 <= end < 1 else f"{100 * end:.0f}" for end in (low, high)]
    return f"{percentage(share)} ({'-'.join(ends)})"


def _median(stats: FirstDifferenceStats | None) -> str:
    """Return the median first difference; `never` where more than half of the answers never part."""
    if stats is None:
        return MISSING
    return "never" if stats.median is None else f"{stats.median:,.0f}"


def _rate(divergence: Divergence) -> str:
    """Return divergences per 1,000 tokens with the 95 % interval."""
    if not divergence.rate:
        return MISSING
    rate, low, high = (divergence.rate[f"divergences_per_1000_tokens{end}"] for end in ("", "_low", "_high"))
    return f"{rate:.1f} ({low:.1f}-{high:.1f})"


def _fit(
    texts: list[Column], figures: list[Column], fixed: list[Column], width: int
) -> tuple[list[Column], list[Column], list[str]]:
    """Leave out columns until the table fits: figures from the last on, then settings, then all figures but one.

    Run, size, status and `fixed` stay.
    """
    left_out: list[str] = []
    while width and _width([*texts, *figures, *fixed]) > width:
        settings = [column for column in texts[1:-1] if column[0] != "size"]
        if len(figures) > _MIN_FIGURES or (len(figures) > 1 and not settings):
            left_out.insert(0, figures[-1][0])
            figures = figures[:-1]
        elif settings:
            left_out.insert(0, settings[-1][0])
            texts = [column for column in texts if column is not settings[-1]]
        else:
            break
    return texts, figures, left_out


def _width(columns: Sequence[Column]) -> int:
    return sum(max(map(len, (head, *cells))) + 1 for head, cells in columns)
