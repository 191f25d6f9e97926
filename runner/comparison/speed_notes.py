"""Notes on what decided a run's speed and cost besides its batches: own limits, lost answers, a prompt cache."""

from collections.abc import Sequence

from runner import text
from runner.comparison.load import Run

_LIMITS = ("limits.requests_per_minute", "limits.tokens_per_minute", "limits.max_cost_usd")
_MIN_WAIT, _MIN_WAIT_S = 0.1, 0.005
"""Median wait over median latency from which a run is bound: each of `batch.size` workers waits and sends in turn, so
that any lasting wait means that something else sets the rate. In a few milliseconds requests are built."""
_MAX_CACHED_DIFFERENCE = 0.1
"""Difference of two runs' shares of cached input, from which there is a note."""


def limited_by_itself(runs: Sequence[Run]) -> list[str]:
    """Name the runs whose calls waited before they left, by what they waited for.

    With `batch.size=auto` calls wait until it is known how many may be in flight.
    """
    bound: dict[str, list[str]] = {}
    for run in runs:
        waited_s = run.metrics.get("queued_p50_s", 0.0)
        took_s = run.metrics.get("latency_p50_s", float("inf"))
        if waited_s > max(_MIN_WAIT_S, _MIN_WAIT * took_s) and run.settings.get("batch.size") != "auto":
            bound.setdefault(_bound_by(run), []).append(f"{run.label} (waited {waited_s:.2f} s, took {took_s:.2f} s)")
    return [
        f"Calls of these runs waited before they left, by the median: {text.listed(listed)}. Their speed is bound by "
        f"{cause}, and not by batch.size alone"
        for cause, listed in bound.items()
    ]


def _bound_by(run: Run) -> str:
    """Return what the calls of a run can have waited for. A service asks for pauses only where it throttles."""
    limits = [f"{name}={run.settings[name]}" for name in _LIMITS if run.settings.get(name) is not None]
    if run.metrics.get("retries"):
        limits.append("the pauses that the service asked for")
    return " or ".join(limits) or "this client, which sends one request after another"


def lost_answers(runs: Sequence[Run]) -> list[str]:
    """Name the runs whose cost is a lower bound: attempts without an answer may be billed as well."""
    bounds = [
        f"{run.label} (${run.metrics['cost_usd']:,.4f} to ${most:,.4f})"
        for run in runs
        if (most := run.metrics.get("cost_at_most_usd")) is not None and "cost_usd" in run.metrics
    ]
    if not bounds:
        return []
    return [
        "The service may also bill attempts whose answers were lost, so that the costs of these runs are lower bounds: "
        f"{text.listed(bounds)}"
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
        f"The service read unlike shares of the input from its prompt cache: {text.listed(listed)}. A cache makes a "
        "run faster and cheaper, and is not the batch's doing: change the order of the runs, or use prompts of your own"
    ]
