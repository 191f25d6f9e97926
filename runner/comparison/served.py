"""How a run's answers were served: which overlapped in time, and which systems of a service answered."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from runner.types import Completion, Outcome, Timing

_RESOLUTION_S = 2e-6
"""`started_at` has whole microseconds: requests that overlap by less are one after another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How the answered prompts of a run were served.

    Attributes:
        prompts: how many were answered.
        overlapping: of these, how many were generated at a time with another: without that, nothing was batched.
        system_fingerprints: what the service says of the systems that answered, sorted; empty where it says nothing.
    """

    prompts: int
    overlapping: int
    system_fingerprints: tuple[str, ...]

    @property
    def overlapping_share(self) -> float | None:
        """The share of overlapping prompts; None where no prompt was answered."""
        return self.overlapping / self.prompts if self.prompts else None


class ServedCounter:
    """Counts how a run's answers were served, outcome by outcome."""

    def __init__(self) -> None:
        self._starts, self._ends = array("d"), array("d")
        self._fingerprints = set[str]()

    def add(self, outcome: Outcome) -> None:
        """Count one outcome. The answers to one prompt are one request."""
        if not isinstance(outcome, Completion):
            return
        if outcome.system_fingerprint is not None:
            self._fingerprints.add(outcome.system_fingerprint)
        if outcome.choice == 0 and outcome.timing.latency_s is not None:
            start, end = _interval(outcome.timing)
            self._starts.append(start)
            self._ends.append(end)

    def served(self) -> Served:
        """Return how the answers counted so far were served."""
        return Served(
            prompts=len(self._starts),
            overlapping=count_overlapping(self._starts, self._ends),
            system_fingerprints=tuple(sorted(self._fingerprints)),
        )


def count_overlapping(starts: Sequence[float], ends: Sequence[float]) -> int:
    """Return how many of the intervals have a time in common with another one."""
    order = sorted(range(len(starts)), key=starts.__getitem__)
    overlapping = set[int]()
    last = None  # the interval that ends last of those so far
    for index in order:
        if last is not None and ends[last] - starts[index] > _RESOLUTION_S:
            overlapping |= {last, index}
        if last is None or ends[index] > ends[last]:
            last = index
    return len(overlapping)


def _interval(timing: Timing) -> tuple[float, float]:
    """Return start and end of the attempt that was answered, in seconds."""
    end = timing.started_at.timestamp() + timing.elapsed_s
    attempt = timing.elapsed_s if timing.last_attempt_latency_s is None else timing.last_attempt_latency_s
    return end - attempt, end
