"""Notes on what decided a run's speed besides its batches: its own limits, a service's prompt cache."""

from collections.abc import Sequence

from runner.comparison.load import Run

_LIMITS = ("limits.requests_per_minute", "limits.tokens_per_minute", "limits.max_cost_usd")
_MAX_CACHED_DIFFERENCE = 0.1
"""Difference of two runs' shares of cached input, from which there is a note."""
_MAX_RUNS = 6
"""Runs that a sentence lists."""


def limited_by_itself(runs: Sequence[Run]) -> list[str]:
    """Name the runs whose calls waited longer than they took. With `batch.size=auto` calls wait for room."""
    bound = [
        run
        for run in runs
        if run.metrics.get("queued_p50_s", 0.0) > run.metrics.get("latency_p50_s", float("inf"))
        and run.settings.get("batch.size") != "auto"
    ]
    if not bound:
        return []
    limits = dict.fromkeys(
        f"{name}={run.settings[name]}" for run in bound for name in _LIMITS if run.settings.get(name) is not None
    )
    listed = [
        f"{run.label} ({run.metrics['queued_p50_s']:.2f} s and {run.metrics['latency_p50_s']:.2f} s)" for run in bound
    ]
    return [
        "The calls of these runs waited longer before they left than they took, by the median: "
        f"{_listed(listed)}. Their speed is that of {', '.join(limits) or 'the pauses that the service asked for'}, "
        "not of batch.size"
    ]


def unlike_caches(runs: Sequence[Run]) -> list[str]:
    """Say where a service read unlike shares of the runs' input from its prompt cache."""
    shares = [
        (run, run.metrics.get("cached_input_tokens", 0.0) / tokens)
        for run in runs
        if (tokens := run.metrics.get("input_tokens", 0.0))
    ]
    values = [share for _, share in shares]
    if not values or max(values) - min(values) <= _MAX_CACHED_DIFFERENCE:
        return []
    listed = [f"{run.label} ({share:.0%})" for run, share in shares]
    return [
        f"The service read unlike shares of the input from its prompt cache: {_listed(listed)}. A cache makes a run "
        "faster and cheaper, and is not the batch's doing: change the order of the runs, or use prompts of your own"
    ]


def _listed(texts: Sequence[str]) -> str:
    more = [f"{len(texts) - _MAX_RUNS} more"] if len(texts) > _MAX_RUNS else []
    return ", ".join([*texts[:_MAX_RUNS], *more])
