"""Stops a run in which more prompts fail than limits.max_failures allows."""

from collections.abc import Sequence, Set

from runner.config.schema import RunConfig
from runner.dispatch.stop import StopRequest
from runner.errors import TooManyFailuresError
from runner.record.outcomes import OutcomesFile
from runner.types import Failure, Outcome

_MIN_PROMPTS = 20
"""A share of failures is taken of at least this many prompts, so that one early failure does not stop a run."""


class FailureLimit:
    """Counts the failed prompts of a run; a prompt that is generated again counts by its new outcome only.

    Args:
        config: has `limits.max_failures`.
        outcomes: those of earlier processes.
        skipped: ids of prompts that keep their earlier outcome.
        stop: gets the reason once too many prompts have failed.
    """

    def __init__(self, config: RunConfig, outcomes: OutcomesFile, skipped: Set[str], stop: StopRequest) -> None:
        self._limit, self._stop = config.limits.max_failures, stop
        self._ended, self._failed = len(skipped), 0
        if self._limit is not None and skipped:
            progress = outcomes.read_progress(choices=config.generation.n)
            self._failed = len(progress.failed & skipped)

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count a call's outcomes, and request a stop once too many have failed."""
        if self._limit is None:
            return
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        self._ended += len({outcome.prompt_id for outcome in outcomes})
        self._failed += len(failures)
        if failures and self._failed > self._allowed(self._limit):
            last = failures[-1].error
            self._stop.request(
                TooManyFailuresError(
                    f"stopped: {self._failed} of {self._ended} prompts failed, limits.max_failures={self._limit}; "
                    f"the last with {last.type}: {last.message}. Resume with a higher limit: "
                    "python -m runner.resume RUN limits.max_failures=N"
                )
            )

    def _allowed(self, limit: float) -> float:
        if isinstance(limit, int):
            return limit
        return limit * max(self._ended, _MIN_PROMPTS)
