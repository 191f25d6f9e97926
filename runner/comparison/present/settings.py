"""The settings that a comparison shows: which keys, under which names, and values short enough for a column."""

from collections.abc import Mapping, Sequence
from os.path import commonprefix

from runner.comparison.load import Run
from runner.comparison.pairing import swept_keys

MISSING = "-"
_MAX_WIDTH = 18
_NAMES = {"model.id": "model", "provider._target_": "provider"}
_PROVIDERS = "runner.providers."

Column = tuple[str, list[str]]
"""A head and its cells."""


def setting_columns(runs: Sequence[Run], shown: Sequence[Run]) -> list[Column]:
    """Return a column for each setting that distinguishes the runs, with cells for some of them."""
    columns = []
    for key, name in _shown_keys(runs).items():
        values = {run.label: value for run, value in zip(runs, _values(runs, key), strict=True)}
        columns.append((name, [values[run.label] for run in shown]))
    return columns


def series(runs: Sequence[Run]) -> Mapping[str, str]:
    """Return the name of every run's series by the run's label: the mode, and what else but the size was swept."""
    keys = {key: name for key, name in _shown_keys(runs).items() if key not in ("batch.mode", "batch.size")}
    columns = [_values(runs, "batch.mode")]
    for key, name in keys.items():
        prefix = "" if key == "model.id" else f"{name}="
        columns.append([prefix + value for value in _values(runs, key)])
    return {run.label: ", ".join(values) for run, *values in zip(runs, *columns, strict=True)}


def _shown_keys(runs: Sequence[Run]) -> dict[str, str]:
    """Return the keys that are columns, with their heads: what was swept, and always mode and size."""
    swept = swept_keys(runs)
    prompts = _distinguishing([key for key in swept if key.startswith("prompts.")], runs)
    keys = [key for key in swept if not key.startswith("prompts.") or key in prompts]
    index = keys.index("batch.size") + 1 if "batch.size" in keys else len(keys)
    for key in ("batch.mode", "batch.size"):
        if key not in keys:
            keys.insert(index, key)
    names = [_NAMES.get(key) or key.rpartition(".")[2] for key in keys]
    return {key: name if names.count(name) == 1 else key for key, name in zip(keys, names, strict=True)}


def _distinguishing(keys: Sequence[str], runs: Sequence[Run]) -> list[str]:
    """Return few keys that distinguish as many runs as all keys do: another prompt set differs in many keys."""

    def count_distinct(keys: Sequence[str]) -> int:
        return len({tuple(_value(run, key) for key in keys) for run in runs})

    chosen: list[str] = []
    for key in sorted(keys, key=lambda key: -count_distinct([key])):
        if count_distinct([*chosen, key]) > count_distinct(chosen):
            chosen.append(key)
    return chosen


def _values(runs: Sequence[Run], key: str) -> list[str]:
    """Return every run's value of a key, shortened; distinct values have distinct texts."""
    values = [_value(run, key) for run in runs]
    short = _shortened(list(dict.fromkeys(values)))
    return [short[value] for value in values]


def _value(run: Run, key: str) -> str:
    value = run.settings.get(key)
    if value is None:
        return MISSING
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"  # as YAML may have it
    if key == "provider._target_" and str(value).startswith(_PROVIDERS):
        return str(value).removeprefix(_PROVIDERS).partition(".")[0]
    return str(value)


def _shortened(values: Sequence[str]) -> Mapping[str, str]:
    """Return distinct short texts for distinct texts: of long ones what follows the common beginning, or the end."""
    long = [value for value in values if len(value) > _MAX_WIDTH]
    common = commonprefix(long) if len(long) > 1 else ""  # noqa: RUF071 - by character, for they need not be paths
    start = max(common.rfind(mark) for mark in "/-_. ") + 1
    for width in range(_MAX_WIDTH, max(map(len, long), default=0)):
        short = {value: _end(value, start, width) if value in long else value for value in values}
        if len(set(short.values())) == len(values):
            return short
    return {value: value for value in values}


def _end(text: str, start: int, width: int) -> str:
    """Return the text from `start` on if it fits `width`, else its last characters behind an ellipsis."""
    if start and len(text) - start < width:
        return "…" + text[start:]
    return text if len(text) <= width else "…" + text[1 - width :]
