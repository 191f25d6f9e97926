"""Intervals of the percentiles of latency and time to first token, from the same pass that reads a run's texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from runner.comparison.inference import percentile_interval
from runner.comparison.load import Run
from runner.metrics.samples import MIN_CALLS, RANKS, CallSamples, call_key
from runner.types import Completion, Outcome

_KINDS = ("latency", "time_to_first_token")

Observers = Sequence[Callable[[Outcome], None]]


class LatencyIntervals:
    """The intervals of each run that was read.

    Attributes:
        by_label: by the run's label, ends of intervals by `METRIC_low` and `METRIC_high`; an end that cannot be had is
            absent.
    """

    def __init__(self) -> None:
        self.by_label: dict[str, Mapping[str, float]] = {}

    @contextmanager
    def observing(self, run: Run) -> Iterator[Observers]:
        """Give the observers that take the run's outcomes inside the `with`: none where the run was read before."""
        if run.label in self.by_label:
            yield ()
            return
        calls = _Calls()
        yield (calls.observe,)
        intervals = calls.intervals()
        self.by_label[run.label] = {
            name: end for name, end in intervals.items() if name.rpartition("_")[0] in run.metrics
        }


class _Calls:
    """Collects the completed calls of one run, whose outcomes are adjacent; 8 bytes a sample."""

    def __init__(self) -> None:
        self._samples = CallSamples(_KINDS)
        self._call: list[Completion] = []

    def observe(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Completion):
            return
        if self._call and call_key(outcome) != call_key(self._call[0]):
            self._end_call()
        self._call.append(outcome)

    def _end_call(self) -> None:
        self._samples.add_call(self._call)
        self._call = []

    def intervals(self) -> dict[str, float]:
        """Return the ends of the intervals, by metric; none of samples that are not one a call: they are dependent."""
        self._end_call()
        ends: dict[str, float] = {}
        for kind, samples in self._samples.by_kind.items():
            ordered = sorted(samples.exact)
            ranks = [rank for rank in RANKS[kind] if len(ordered) == samples.calls >= MIN_CALLS[rank]]
            for rank in ranks:
                interval = percentile_interval(ordered, rank)
                for end, value in (("low", interval.low), ("high", interval.high)):
                    if value is not None:
                        ends[f"{kind}_p{rank}_s_{end}"] = value
        return ends
