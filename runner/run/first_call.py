"""Whether a warm-up was long enough: the first call of a process against what its peers took."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Self

from runner.types import Completion, Outcome

_MAX_PEERS, _MIN_PEERS = 32, 3
"""Later calls that are kept at most, and those that a ratio needs."""
_MIN_LIKENESS = 0.75
"""Ratio of the widths of two peers at least: over a wider range a prompt's pass takes another time by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """The size and the time of one call.

    Attributes:
        rows, width, steps: its answers, the tokens of its longest prompt, and those of its longest answer.
        prompt_s, step_s: seconds until the first token, and of a step after it. Without a first token, all are steps.
    """

    start_s: float
    end_s: float
    rows: int
    width: int
    steps: int
    prompt_s: float
    step_s: float

    @classmethod
    def of(cls, rows: Sequence[Completion]) -> Self:
        """Return the call of these answers, at least one, all with their usage."""
        usages = [row.usage for row in rows if row.usage is not None]
        timing, steps = rows[0].timing, max(usage.output_tokens for usage in usages)
        start_s, prompt_s = timing.started_at.timestamp(), timing.time_to_first_token_s or 0.0
        return cls(
            start_s=start_s,
            end_s=start_s + timing.elapsed_s,
            rows=len(rows),
            width=max(usage.input_tokens for usage in usages),
            steps=steps,
            prompt_s=prompt_s,
            step_s=(timing.elapsed_s - prompt_s) / max(1, steps - 1),
        )

    def is_peer_of(self, first: Self) -> bool:
        """Whether the call began after the first one had ended, and is of like size."""
        narrow, wide = sorted((self.width, first.width))
        return self.start_s >= first.end_s and self.rows == first.rows and narrow >= _MIN_LIKENESS * wide


@dataclass(slots=True)
class FirstCalls:
    """The first call of each segment and a few of its peers, found while outcomes are read; holds no texts.

    Answers differ in length, so that calls are compared by the time of the prompt's pass and of a step.
    """

    _kept: dict[int, list[_Call]] = field(default_factory=dict)
    _rows: list[Completion] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome; those of one call are adjacent."""
        if self._rows and (outcome.segment, outcome.batch) != (self._rows[0].segment, self._rows[0].batch):
            self._finish_call()
        if isinstance(outcome, Completion) and outcome.usage and len(self._kept.get(outcome.segment, ())) <= _MAX_PEERS:
            self._rows.append(outcome)

    def _finish_call(self) -> None:
        call, calls = _Call.of(self._rows), self._kept.setdefault(self._rows[0].segment, [])
        if not calls or call.is_peer_of(calls[0]):
            calls.append(call)
        self._rows = []

    def ratio(self) -> float | None:
        """Return the first call's time over the one that its peers' pace gives; None where it has too few peers.

        Each process of a run has a first call: the largest ratio is returned.
        """
        if self._rows:
            self._finish_call()
        return max(
            (_ratio(first, peers) for first, *peers in self._kept.values() if len(peers) >= _MIN_PEERS), default=None
        )


def _ratio(first: _Call, peers: Sequence[_Call]) -> float:
    steps = max(1, first.steps - 1)
    expected_s = median(peer.prompt_s for peer in peers) + steps * median(peer.step_s for peer in peers)
    return (first.prompt_s + steps * first.step_s) / max(expected_s, 1e-9)
