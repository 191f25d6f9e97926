"""Samples of completed calls and their percentiles. A percentile counts calls, not copies of one call's time."""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from runner.types import Completion, Outcome, Timing

RANKS: Mapping[str, tuple[int, ...]] = {
    "queued": (50, 99),
    "latency": (50, 90, 95, 99),
    "time_to_first_token": (50, 90, 95, 99),
    "time_to_first_answer_token": (50, 90, 95, 99),
    "inter_token_latency": (50, 99),
    "inter_chunk_latency": (50, 99),
}
"""The percentiles of each kind of sample."""
MIN_CALLS = {50: 1, 90: 10, 95: 20, 99: 100}
"""Calls that a percentile needs, by rank: of fewer, a high percentile is only the largest."""
_MAX_EXACT = 1 << 20
"""Samples that are kept one by one, 8 bytes each; more are counted in bins."""
_MIN_BINNED_S, _BIN_RATIO, _BINS = 1e-6, 1.01, 2560
"""Bins from a microsecond to 31 hours, each 1 % wider than the one before: its middle is within 0.5 % of its values."""


def call_key(outcome: Outcome) -> tuple[int, int | str]:
    """Return what the outcomes of one call have in common. Each prompt of a batch job is a request of its own."""
    return outcome.segment, outcome.batch if outcome.timing.latency_s is not None else outcome.prompt_id


def no_samples(kind: str = "d") -> "array[float]":
    """Return an empty array of samples."""
    return array(kind)


@dataclass(slots=True, kw_only=True)
class Samples:
    """Samples of one kind, exact up to 1,048,576 and counted in bins of 1 % above.

    Attributes:
        calls: how many calls the samples are of.
        exact: the samples, in seconds; those since the last were binned.
    """

    calls: int = 0
    exact: "array[float]" = field(default_factory=no_samples)
    _binned: "np.ndarray[tuple[int], np.dtype[np.int64]] | None" = None

    def add_call(self, values: Sequence[float]) -> None:
        """Add one call's samples; a call without any is no call of this kind."""
        if values:
            self.calls += 1
            self.exact.extend(values)
            if len(self.exact) > _MAX_EXACT:
                self._bin()

    def percentiles(self, name: str) -> Mapping[str, float]:
        """Return the percentiles that have enough calls, as metrics `NAME_pRANK_s`."""
        if self._binned is not None:
            self._bin()
        return {
            f"{name}_p{rank}_s": self._percentile(rank) for rank in RANKS[name] if self.calls >= MIN_CALLS[rank]
        }  # fmt: skip

    def _bin(self) -> None:
        values = np.maximum(np.asarray(self.exact), _MIN_BINNED_S)
        bins = (np.log(values / _MIN_BINNED_S) / np.log(_BIN_RATIO)).astype(np.int64)
        counts = np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)
        self._binned = counts if self._binned is None else self._binned + counts
        self.exact = no_samples()

    def _percentile(self, rank: int) -> float:
        """Interpolate linearly between the closest ranks (numpy's default, Hyndman and Fan's type 7).

        Of binned samples, return the middle of the bin that holds the rank.
        """
        if self._binned is None:
            return float(np.percentile(self.exact, rank))
        cumulative = np.cumsum(self._binned)
        position = rank / 100 * (cumulative[-1] - 1)
        number = int(np.searchsorted(cumulative, position, side="right"))
        return float(_MIN_BINNED_S * _BIN_RATIO ** (number + 0.5))


class CallSamples:
    """Samples of completed calls, by kind. Answers with one timing, as the rows of a padded batch, are one sample.

    Args:
        kinds: of RANKS, those that are collected.
    """

    def __init__(self, kinds: Iterable[str] = tuple(RANKS)) -> None:
        self.by_kind = {kind: Samples() for kind in kinds}

    def add_call(self, completions: Iterable[Completion]) -> None:
        """Add the samples of one call's completions."""
        answers: dict[Timing, list[Completion]] = {}
        for completion in completions:
            answers.setdefault(completion.timing, []).append(completion)
        for kind, samples in self.by_kind.items():
            measure = _MEASURES[kind]
            samples.add_call([value for timing, group in answers.items() for value in measure(timing, group)])

    def percentiles(self) -> dict[str, float]:
        """Return every percentile that has enough calls, by the name of its metric."""
        metrics: dict[str, float] = {}
        for kind, samples in self.by_kind.items():
            metrics |= samples.percentiles(kind)
        return metrics


def _inter_token_s(timing: Timing, answers: Iterable[Completion]) -> Iterable[float]:
    """Return the mean time from one token of the longest answer to the next; nothing where that cannot be had.

    After reasoning only the text counts, from its first token on: of hidden reasoning nobody saw when its tokens came.
    """
    usages = [answer.usage for answer in answers if answer.usage is not None]
    if not usages:
        return ()
    reasoning = [usage.reasoning_tokens for usage in usages]
    first_s = timing.time_to_first_token_s
    if timing.time_to_first_answer_token_s is not None or any(reasoning):
        first_s = None if None in reasoning else timing.time_to_first_answer_token_s
    tokens = max(usage.output_tokens - (usage.reasoning_tokens or 0) for usage in usages)
    return () if first_s is None or tokens < 2 else ((timing.elapsed_s - first_s) / (tokens - 1),)


def _known(value: float | None) -> Sequence[float]:
    return () if value is None else (value,)


_MEASURES: Mapping[str, Callable[[Timing, list[Completion]], Iterable[float]]] = {
    "queued": lambda timing, _: _known(timing.queued_s),
    "latency": lambda timing, _: _known(timing.latency_s),
    "time_to_first_token": lambda timing, _: _known(timing.time_to_first_token_s),
    "time_to_first_answer_token": lambda timing, _: _known(timing.time_to_first_answer_token_s),
    "inter_token_latency": _inter_token_s,
    "inter_chunk_latency": lambda timing, _: timing.chunk_gaps_s,
}
"""What each kind of sample is, of the answers that share a timing."""
