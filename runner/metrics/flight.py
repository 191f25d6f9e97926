"""When calls waited, were in flight and ended: what follows from the intervals of all calls together."""

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runner.metrics.samples import no_samples
from runner.types import Completion, Outcome

Floats = NDArray[np.float64]


class Full(NamedTuple):
    """How many calls were in flight at most, and when there were so many for the first and the last time."""

    peak: int
    first_s: float
    last_s: float


@dataclass
class SegmentCalls:
    """The calls of one segment in 28 bytes each; times in seconds of the wall clock.

    Attributes:
        starts, ends: of every call, from its first attempt to its end.
        queued_s: for how long the call waited before its start.
        stream_s: from the call's first token to its end; the whole call where nothing was streamed.
        tokens: the call's output tokens, as far as they are known.
    """

    starts: "array[float]" = field(default_factory=no_samples)
    ends: "array[float]" = field(default_factory=no_samples)
    queued_s: "array[float]" = field(default_factory=lambda: no_samples("f"))
    stream_s: "array[float]" = field(default_factory=lambda: no_samples("f"))
    tokens: "array[int]" = field(default_factory=lambda: array("I"))

    def add(self, call: Sequence[Outcome]) -> None:
        """Add a call, failed or not."""
        start = call[0].timing.started_at.timestamp()
        latency_s = max(outcome.timing.elapsed_s for outcome in call)
        firsts_s = [timing.time_to_first_token_s for timing in (outcome.timing for outcome in call)]
        first_s = min((first_s for first_s in firsts_s if first_s is not None), default=0.0)
        self.starts.append(start)
        self.ends.append(start + latency_s)
        self.queued_s.append(call[0].timing.queued_s or 0.0)
        self.stream_s.append(latency_s - first_s)
        usages = [outcome.usage for outcome in call if isinstance(outcome, Completion)]
        self.tokens.append(sum(usage.output_tokens for usage in usages if usage is not None))

    @property
    def whole_s(self) -> float:
        """From when the first call wanted to leave to the last end."""
        return float(np.max(self.ends) - np.min(self._wanted)) if self.ends else 0.0

    @property
    def occupied_s(self) -> float:
        """For how long at least one call waited or was in flight: the length of the union of these intervals."""
        if not self.ends:
            return 0.0
        wanted, ends = self._wanted, np.asarray(self.ends)
        order = np.argsort(wanted)
        wanted, last_ends = wanted[order], np.maximum.accumulate(ends[order])
        gaps_s = np.maximum(0.0, wanted[1:] - last_ends[:-1]).sum()
        return float(last_ends[-1] - wanted[0] - gaps_s)

    @property
    def in_flight_s(self) -> float:
        """The sum of all calls' latencies."""
        return float(np.sum(np.asarray(self.ends) - np.asarray(self.starts)))

    @cached_property
    def full(self) -> Full:
        """The peak of calls in flight: the sweep line over all starts and ends, of equal times the ends first."""
        times = np.concatenate((self.starts, self.ends))
        changes = np.repeat(np.array((1, -1), np.int8), len(self.starts))
        order = np.lexsort((changes, times))
        in_flight = np.cumsum(changes[order], dtype=np.int32)
        is_peak = in_flight == in_flight.max()
        first, after_last = int(is_peak.argmax()), len(is_peak) - int(is_peak[::-1].argmax())
        return Full(int(in_flight.max()), float(times[order[first]]), float(times[order[after_last]]))

    def ended_between(self, first_s: float, last_s: float) -> int:
        """Return how many calls ended within a time."""
        ends = np.asarray(self.ends)
        return int(np.count_nonzero((ends > first_s) & (ends <= last_s)))

    def tokens_between(self, first_s: float, last_s: float) -> float:
        """Return the output tokens within a time; a call's are spread evenly from its first token to its end."""
        ends, stream_s = np.asarray(self.ends), np.maximum(np.asarray(self.stream_s, np.float64), 1e-9)
        overlap_s = np.minimum(ends, last_s) - np.maximum(ends - stream_s, first_s)
        return float(np.sum(np.asarray(self.tokens) * np.clip(overlap_s / stream_s, 0.0, 1.0)))

    @property
    def _wanted(self) -> Floats:
        """When each call wanted to leave."""
        return np.subtract(self.starts, self.queued_s, dtype=np.float64)


def in_flight_metrics(segments: Collection[SegmentCalls], duration_s: float) -> dict[str, float]:
    """Return how many calls were in flight, and the rate while as many as ever were.

    Args:
        segments: of a run, each with a call at least.
        duration_s: of the run.
    """
    if not segments or duration_s <= 0:
        return {}
    peak = max(segment.full.peak for segment in segments)
    metrics = {
        "mean_requests_in_flight": sum(segment.in_flight_s for segment in segments) / duration_s,
        "peak_requests_in_flight": float(peak),
    }
    steady = [segment for segment in segments if segment.full.peak == peak]
    windows = [segment.full[1:] for segment in steady]
    ended = sum(segment.ended_between(*window) for segment, window in zip(steady, windows, strict=True))
    tokens = sum(segment.tokens_between(*window) for segment, window in zip(steady, windows, strict=True))
    seconds = sum(last_s - first_s for first_s, last_s in windows)
    if ended >= peak and tokens and seconds > 0:
        metrics["steady_output_tokens_per_s"] = tokens / seconds
    return metrics
