"""Stops a run in which more prompts fail than limits.max_failures allows."""

from collections.abc import Sequence, Set

from runner.config.schema import RunConfig
from runner.dispatch.stop import StopRequest
from runner.errors import TooManyFailuresError
from runner.record.outcomes import OutcomesFile
from runner.types import Failure, Outcome

_MIN_JUDGED = 20
"""Answers from which on a share of failures is judged."""


class FailureLimit:
    """Counts failed prompts of the whole record: what is kept from before counts, a failure tried again does not."""

    def __init__(self, config: RunConfig, outcomes: OutcomesFile, completed: Set[str], stop: StopRequest) -> None:
        self._limit, self._stop = config.limits.max_failures, stop
        self._answered, self._failed = len(completed), 0
        if self._limit is not None and completed:
            progress = outcomes.read_progress(choices=config.generation.n)
            self._failed = len(progress.failed & completed)

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count a call's outcomes, and request a stop once too many have failed."""
        if self._limit is None:
            return
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        self._answered += len({outcome.prompt_id for outcome in outcomes})
        self._failed += len(failures)
        if failures and self._failed > self._allowed(self._limit):
            last = failures[-1].error
            self._stop.request(
                TooManyFailuresError(
                    f"stopped: {self._failed} of {self._answered} prompts failed, limits.max_failures={self._limit}; "
                    f"the last with {last.type}: {last.message}"
                )
            )

    def _allowed(self, limit: float) -> float:
        if isinstance(limit, int):
            return limit
        return limit * max(self._answered, _MIN_JUDGED)
