"""A comparison as tables of texts: for the terminal (100 columns), a markdown note, the page. Knows no terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, log10
from os.path import commonprefix
from statistics import median
from typing import Literal

from runner.comparison import speed
from runner.comparison.compare import Compared, Comparison
from runner.comparison.divergence import FirstDifferenceStats
from runner.comparison.load import Run
from runner.comparison.pairing import are_comparable, swept_keys
from runner.comparison.speed import Row, Spread

WIDTH = 100
MISSING = "-"
_LONGEST_SETTING = 18
_BEST = "*"
_WINNERS = 3
"""Rows of one speed that the headline names."""
_NOTED = 8
"""Alarms, and notes, that a note in MLflow repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of texts; the first `text_columns` columns say what the row is. `left_out` had no room."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    left_out: tuple[str, ...] = ()

    def shortened(self, rows: int) -> "Table":
        """Return the table's first rows."""
        return replace(self, rows=self.rows[:rows])

    @property
    def markdown(self) -> str:
        """The table as GitHub and MLflow show it."""
        rule = tuple("---" if place < self.text_columns else "--:" for place in range(len(self.columns)))
        return "\n".join(_markdown_line(cells) for cells in (self.columns, rule, *self.rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    """A column: its head, its metric, the kind of its values, and which end is better."""

    head: str
    name: str
    best: Callable[[Iterable[float]], float]
    kind: Literal["rate", "seconds", "ratio", "usd"]
    ranged: bool = False


FIGURES = (
    _Figure(head="tokens/s", name=speed.THROUGHPUT, kind="rate", best=max, ranged=True),
    _Figure(head="p50 s", name=speed.LATENCY, kind="seconds", best=min),
    _Figure(head="padding", name="prompt_padding_ratio", kind="ratio", best=min),
    _Figure(head="tail", name="tail_wait_ratio", kind="ratio", best=min),
    _Figure(head="TTFT s", name="time_to_first_token_p50_s", kind="seconds", best=min),
    _Figure(head="$/1k", name=speed.COST_PROMPTS, kind="usd", best=min),
    _Figure(head="prompts/s", name="prompts_per_s", kind="rate", best=max),
    _Figure(head="p95 s", name="latency_p95_s", kind="seconds", best=min),
    _Figure(head="$/M out", name=speed.COST_TOKENS, kind="usd", best=min),
    _Figure(head="p99 s", name="latency_p99_s", kind="seconds", best=min),
    _Figure(head="TTFT p95", name="time_to_first_token_p95_s", kind="seconds", best=min),
    _Figure(head="p90 s", name="latency_p90_s", kind="seconds", best=min),
    _Figure(head="total s", name="duration_s", kind="seconds", best=min),
)
"""In the order in which room is found for them."""


def speed_table(comparison: Comparison, *, width: int = WIDTH) -> Table:
    """Return one row per configuration; `*` is the best of its column.

    Columns that do not fit are left out from the least important on. A width of 0 has room for all.
    """
    rows = comparison.rows
    text = [("run", [row.label for row in rows]), *_settings(comparison.runs, [row.runs[0] for row in rows])]
    text.append(("status", [row.status for row in rows]))
    ends = [("speed-up", [_speedup(row) for row in rows]), ("front", ["yes" if row.on_front else "" for row in rows])]
    if len({row.reference for row in rows if row.reference}) > 1:
        ends.insert(1, ("vs", [row.reference or "" for row in rows]))
    figures = [(one.head, _cells(rows, one)) for one in FIGURES if any(one.name in row.figures for row in rows)]
    text, figures, left_out = _fit(text, figures, ends, width)
    columns = [*text, *figures[:1], *ends, *figures[1:]]
    return Table(
        title="Speed",
        columns=tuple(head for head, _ in columns),
        rows=tuple(zip(*(cells for _, cells in columns), strict=True)),
        text_columns=len(text),
        left_out=tuple(left_out),
    )


def text_tables(comparison: Comparison, *, width: int = WIDTH) -> list[Table]:
    """Return how texts differ: divergence, and where models differ a comparison of outputs.

    Columns that do not fit are left out from the last on. A width of 0 has room for all.
    """
    titles = {"divergence": "Divergence from the reference", "outputs": "Comparison of outputs (different models)"}
    tables = []
    for kind, title in titles.items():
        found = [one for one in comparison.compared if one.texts and one.pair.kind == kind]
        if found:
            settings = _settings(comparison.runs, [one.pair.run for one in found])
            tables.append(_text_table(title, found, settings, width))
    return tables


def headline(comparison: Comparison) -> str | None:
    """Return what a reader wants to know first: the fastest configuration, and what became of its texts.

    Nothing is the fastest of rows that were not asked the same, and none of those that did not finish.
    """
    measured = [row for row in comparison.rows if speed.THROUGHPUT in row.figures and row.is_finished]
    if len(measured) < 2 or not are_comparable([run for row in measured for run in row.runs]):
        return None
    top = max(measured, key=_rate)
    if len(alike := [row for row in measured if row is top or speed.in_noise(top, row)]) > 1:
        return f"No difference beyond the noise of the repeats between the fastest: {_all_named(comparison, alike)}"
    if len(equal := [row for row in measured if _rate(row) == _rate(top)]) > 1:
        return f"Equally fast: {_all_named(comparison, equal)}, {_rate(top):,.1f} output tokens/s"
    said = f"Fastest: {_named(comparison, top)}, {_rate(top):,.1f} output tokens/s"
    if top.speedup and top.reference:
        said += f", {_speedup(top)} run {top.reference}'s"
    if top.reference and (matches := comparison.exact_matches(top)):
        said += f"; {_ratio(median(matches))} of its answers are run {top.reference}'s to the letter"
    return said


def _rate(row: Row) -> float:
    return row.figures[speed.THROUGHPUT].median


def markdown(comparison: Comparison, *, most: int = 7500) -> str:
    """Return a note for MLflow: alarms and the result first, and as many rows as `most` characters hold."""
    tables = [speed_table(comparison), *text_tables(comparison)]
    rows = max(len(table.rows) for table in tables)
    while len(note := _note(comparison, tables, rows)) > most and rows > 1:
        rows //= 2
    return note


def _note(comparison: Comparison, tables: Sequence[Table], rows: int) -> str:
    alarms = [f"**ALARM** {_escaped(note.text)}" for note in comparison.notes if note.level == "alarm"]
    notes = [f"- {_escaped(note.text)}" for note in comparison.notes if note.level == "note"]
    return "\n\n".join(
        [
            *_first(alarms, _NOTED, "alarms"),
            *([f"**{_escaped(said)}**"] if (said := headline(comparison)) else []),
            *(part for table in tables for part in _note_table(table, rows)),
            "\n".join(_first(notes, _NOTED, "notes")),
        ]
    )


def _note_table(table: Table, rows: int) -> list[str]:
    """Return a table's first rows, and what was left out of it."""
    more = len(table.rows) - rows
    return [
        f"**{table.title}**\n\n{table.shortened(rows).markdown}",
        *([f"{more} more rows: see comparison.html"] if more > 0 else []),
        *([f"No room here for {_escaped(', '.join(table.left_out))}: see comparison.html"] if table.left_out else []),
    ]


def _first(texts: Sequence[str], count: int, what: str) -> list[str]:
    more = len(texts) - count
    return [*texts[:count], *([f"{more} more {what}: see comparison.html"] if more > 0 else [])]


def _text_table(title: str, found: Sequence[Compared], settings: Sequence["_Column"], width: int) -> Table:
    units = {one.texts.unit for one in found if one.texts and one.texts.units}
    unit = "/".join(sorted(units)) or "token"
    text = [("run", [one.pair.run.label for one in found]), *settings]
    text.append(("vs", [one.pair.reference.label for one in found]))
    figures = [
        ("compared", [f"{one.texts.compared:,}" for one in found if one.texts]),
        ("exact", [_ratio(one.texts.exact_match_ratio) for one in found if one.texts]),
        ("differ", [f"{one.texts.differing:,}" for one in found if one.texts]),
        (f"1st {unit}", [_middle(one.texts.units) for one in found if one.texts]),
        ("1st char", [_middle(one.texts.characters) for one in found if one.texts]),
        ("similar", [_ratio(one.texts.similarity) for one in found if one.texts]),
        ("tokens", [_change(one.texts.mean_token_change) for one in found if one.texts]),
        ("finish", [f"{sum(one.texts.finish_reasons.values()):,}" for one in found if one.texts]),
        ("one side", [f"{one.texts.only_reference + one.texts.only_run:,}" for one in found if one.texts]),
    ]
    text, figures, left_out = _fit(text, figures, [], width)
    columns = [*text, *figures]
    return Table(
        title=title,
        columns=tuple(head for head, _ in columns),
        rows=tuple(zip(*(cells for _, cells in columns), strict=True)),
        text_columns=len(text),
        left_out=tuple(left_out),
    )


def _named(comparison: Comparison, row: Row) -> str:
    settings = ", ".join(f"{name} {value}" for name, (value,) in _settings(comparison.runs, row.runs[:1]))
    return f"run {row.label} ({settings})"


def _all_named(comparison: Comparison, rows: Sequence[Row]) -> str:
    named = [_named(comparison, row) for row in rows[:_WINNERS]]
    more = len(rows) - len(named)
    return " and ".join([", ".join(named), f"{more} more"] if more else [", ".join(named[:-1]), named[-1]])


def series(comparison: Comparison) -> Mapping[str, str]:
    """Return, by a run's label, what tells it from others but for the batch size: its mode, and what else was swept."""
    keys = _shown_keys(comparison.runs)
    keys = {"batch.mode": "", **{key: name for key, name in keys.items() if key not in ("batch.mode", "batch.size")}}
    parts = []
    for key, name in keys.items():
        start = "" if key in ("batch.mode", "model.id") else f"{name}="
        parts.append([start + value for value in _values(comparison.runs, key)])
    return {run.label: ", ".join(said) for run, *said in zip(comparison.runs, *parts, strict=True)}


_Column = tuple[str, list[str]]


def _fit(
    text: list[_Column], figures: list[_Column], ends: list[_Column], width: int
) -> tuple[list[_Column], list[_Column], list[str]]:
    """Leave out what has no room: figures from the last on, then settings; never run, size, status and one figure."""
    left_out: list[str] = []
    while width and _width([*text, *figures, *ends]) > width:
        if len(figures) > 3:
            left_out.insert(0, figures[-1][0])
            figures = figures[:-1]
        elif settings := [column for column in text[1:-1] if column[0] != "size"]:
            left_out.insert(0, settings[-1][0])
            text = [column for column in text if column is not settings[-1]]
        elif len(figures) > 1:
            left_out.insert(0, figures[-1][0])
            figures = figures[:-1]
        else:
            break
    return text, figures, left_out


def _width(columns: Sequence[_Column]) -> int:
    return sum(max(map(len, (head, *cells))) + 1 for head, cells in columns)


def _shown_keys(runs: Sequence[Run]) -> dict[str, str]:
    """Return the settings that are columns, with their heads: what was swept, and what a batch size means."""
    swept = list(swept_keys(runs))
    prompts = _telling([key for key in swept if key.startswith("prompts.")], runs)
    keys = [key for key in swept if not key.startswith("prompts.") or key in prompts]
    at = keys.index("batch.size") + 1 if "batch.size" in keys else len(keys)
    if "batch.mode" not in keys:
        keys.insert(at, "batch.mode")
    if "batch.size" not in keys:
        keys.insert(at, "batch.size")
    last = [_last_part(key) for key in keys]
    return {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}


def _telling(keys: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Return as few keys as tell runs apart as well as all of them do: another prompt set differs in many."""
    chosen: list[str] = []
    for key in sorted(keys, key=lambda key: -_kinds([key], runs)):
        if _kinds([*chosen, key], runs) > _kinds(chosen, runs):
            chosen.append(key)
    return chosen


def _kinds(keys: Sequence[str], runs: Sequence[Run]) -> int:
    return len({tuple(_full(run, key) for key in keys) for run in runs})


def _last_part(key: str) -> str:
    return {"model.id": "model", "provider._target_": "provider"}.get(key) or key.rpartition(".")[2]


def _settings(runs: Sequence[Run], shown: Sequence[Run]) -> list["_Column"]:
    """Return the columns that say what some of the runs are among all."""
    columns = []
    for key, name in _shown_keys(runs).items():
        values = {run.label: value for run, value in zip(runs, _values(runs, key), strict=True)}
        columns.append((name, [values[run.label] for run in shown]))
    return columns


def _values(runs: Sequence[Run], key: str) -> list[str]:
    """Return every run's value of a key as it is shown: short, and another text where it is another value."""
    full = [_full(run, key) for run in runs]
    names = _short(list(dict.fromkeys(full)))
    return [names[value] for value in full]


def _full(run: Run, key: str) -> str:
    value = run.settings.get(key)
    if value is None:
        return MISSING
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"  # as YAML may have it
    if key == "provider._target_" and str(value).startswith("runner.providers."):
        return str(value).split(".")[2]
    return str(value)


def _short(values: Sequence[str]) -> Mapping[str, str]:
    """Return distinct short texts for distinct texts: long ones lose what they all begin with, or all but their end."""
    long = [value for value in values if len(value) > _LONGEST_SETTING]
    alike = commonprefix(long) if len(long) > 1 else ""  # noqa: RUF071 - by character, for they need not be paths
    start = max(alike.rfind(mark) for mark in "/-_. ") + 1
    for room in range(_LONGEST_SETTING, max(map(len, long), default=0)):
        names = {value: _shortened(value, start, room) for value in long}
        names |= {value: value for value in values if value not in names}
        if len(set(names.values())) == len(values):
            return names
    return {value: value for value in values}


def _shortened(text: str, start: int, room: int) -> str:
    if start and len(text) - start < room:
        return "…" + text[start:]
    return text if len(text) <= room else "…" + text[1 - room :]


def _cells(rows: Sequence[Row], figure: _Figure) -> list[str]:
    top = speed.best(rows, figure.name, of=figure.best)
    marks = [(_BEST if at in top else " ") if top else "" for at in range(len(rows))]
    form = _form(figure, [row.figures[figure.name].median for row in rows if figure.name in row.figures])
    return [
        _spread(row.figures.get(figure.name), form, ranged=figure.ranged) + marks[at] for at, row in enumerate(rows)
    ]


def _form(figure: _Figure, values: Sequence[float]) -> str:
    """Return one format for a column, so that its points stand under each other; small values keep two digits."""
    if figure.kind == "ratio":
        return "{:.0%}"
    least = min((value for value in values if value > 0), default=1.0)
    fewest = {"rate": 0 if least >= 1000 else 1}.get(figure.kind, 2)
    return f"{{:,.{min(6, max(fewest, 1 - floor(log10(least))))}f}}"


def _spread(spread: Spread | None, form: str, *, ranged: bool) -> str:
    if spread is None:
        return MISSING
    if not ranged or spread.count < 2:
        return form.format(spread.median)
    return f"{form.format(spread.median)} ({form.format(spread.low)}-{form.format(spread.high)})"


def _speedup(row: Row) -> str:
    if row.speedup is None:
        return "reference" if row.reference is None and speed.THROUGHPUT in row.figures else MISSING
    return f"{'~' if row.in_noise else ''}{row.speedup.median:.2f}x"


def _ratio(value: float | None) -> str:
    return MISSING if value is None else _percent(value)


def _percent(value: float) -> str:
    """Return a percentage that says 100 % (or 0 %) only where it is that."""
    text = f"{value:.1%}"
    return {"100.0%": "100%" if value == 1 else ">99.9%", "0.0%": "0%" if value == 0 else "<0.1%"}.get(text, text)


def _middle(spots: FirstDifferenceStats | None) -> str:
    return MISSING if spots is None else f"{spots.median:,.0f}"


def _change(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.1f}" if round(value, 1) else "0"


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Keep a value from a configuration a text: no table cell, no markup, no tag."""
    for char in "\\`*_[]|":
        text = text.replace(char, f"\\{char}")
    return text.replace("<", "&lt;").replace("\n", " ")
