"""The table that compares the jobs of a sweep: what was changed, and what came of it. Knows no terminal, no MLflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.runfiles import Summary

_MISSING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of a sweep: its number, what its configuration says, and how it ended (None: it left no summary)."""

    number: int
    config: Mapping[str, Any]
    overrides: tuple[str, ...]
    summary: Summary | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A table of texts, a row per job; the first `text_columns` columns say what the job was."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int


def compare(jobs: Sequence[Job]) -> Comparison:
    """Put the jobs side by side. `speed-up` is in output tokens per second, against the first job that has them."""
    swept = _swept_keys(jobs)
    head = ("job", *swept, *(name for name in ("batch.mode",) if name not in swept))
    reference = next((rate for job in jobs if (rate := _metric(job, "output_tokens_per_s"))), None)
    rows = tuple(
        (
            str(job.number),
            *(_setting(job, key) for key in head[1:]),
            _ending(job),
            *(_figure(job, name, form) for name, form in _FIGURES.values()),
            _ratio(_metric(job, "output_tokens_per_s"), reference),
        )
        for job in jobs
    )
    columns = (*_short_names(head), "status", *_FIGURES, "speed-up")
    return Comparison(columns=columns, rows=rows, text_columns=len(head) + 1)


_FIGURES = {
    "tokens/s": ("output_tokens_per_s", "{:,.1f}"),
    "prompts/s": ("prompts_per_s", "{:,.2f}"),
    "p50 s": ("latency_p50_s", "{:.2f}"),
    "TTFT s": ("time_to_first_token_p50_s", "{:.3f}"),
    "padding": ("prompt_padding_ratio", "{:.0%}"),
    "tail": ("tail_wait_ratio", "{:.0%}"),
    "total s": ("duration_s", "{:,.1f}"),
}


def _short_names(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the last part of each key (`size` for `batch.size`), or the whole key where two end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return tuple(name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True))


def _swept_keys(jobs: Sequence[Job]) -> tuple[str, ...]:
    """Return the overridden keys whose values are not the same in all jobs."""
    values: dict[str, set[str]] = {}
    for job in jobs:
        for override in job.overrides:
            key, _, value = override.lstrip("+~").partition("=")
            values.setdefault(key, set()).add(value)
    return tuple(key for key, found in values.items() if len(found) > 1)


def _setting(job: Job, key: str) -> str:
    for override in job.overrides:
        name, _, value = override.lstrip("+~").partition("=")
        if name == key:
            return value
    found: Any = job.config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return _MISSING if found is None else str(found)


def _ending(job: Job) -> str:
    if job.summary is None:
        return "no result"
    failed = job.summary.metrics.get("failed_prompts", 0)
    if job.summary.status == "FINISHED" and failed:
        return f"{failed:.0f} failed"
    return "ok" if job.summary.status == "FINISHED" else job.summary.status


def _metric(job: Job, name: str) -> float | None:
    return job.summary.metrics.get(name) if job.summary else None


def _figure(job: Job, name: str, form: str) -> str:
    value = _metric(job, name)
    return _MISSING if value is None else form.format(value)


def _ratio(value: float | None, reference: float | None) -> str:
    return f"{value / reference:.2f}x" if value and reference else _MISSING
