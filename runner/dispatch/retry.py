"""Decides which calls are sent again, when, and which errors end the whole run."""

import logging
import random

import tenacity

from runner.config.schema import LimitsConfig
from runner.dispatch.call import Call
from runner.providers.errors import UNREACHABLE, CallError

log = logging.getLogger(__name__)

_MAX_RETRY_AFTER_S = 3600.0
"""A service that asks for a longer wait ends the run."""
_MAX_FATAL_IN_ROW = 5
"""If so many calls in a row meet a fatal error, their prompts are not the reason."""
_FIRST_WAIT_S, _MAX_WAIT_S, _MAX_DOUBLINGS = 0.5, 60.0, 7


class Answers:
    """Whether a service answers, and how many fatal errors came in a row since.

    Attributes:
        any: whether it has answered any request of the run.
        last_at: when it last answered a request of this process, by the calls' clock; None before.
    """

    def __init__(self) -> None:
        self.any = False
        self.last_at: float | None = None
        self._fatal_in_row = 0

    def add(self, now: float) -> None:
        """Count an answer."""
        self.any, self.last_at, self._fatal_in_row = True, now, 0

    def explain_fatal(self) -> bool:
        """Count a fatal error; return whether its prompt may be the only reason."""
        self._fatal_in_row += 1
        return self.any and self._fatal_in_row < _MAX_FATAL_IN_ROW


class RetryPolicy:
    """Decides when a call has no attempt left, and when a failed call ends the run.

    Args:
        limits: how many attempts a call has; throttled ones do not count.
        max_throttled_s: how long a call may be throttled.
    """

    def __init__(self, limits: LimitsConfig, max_throttled_s: float) -> None:
        self._max_attempts, self._max_throttled_s = limits.max_attempts, max_throttled_s

    def should_give_up(self, state: tenacity.RetryCallState) -> bool:
        """Return whether a call has no attempt left. Throttled attempts are limited by their time, not their number."""
        call, error = failed_attempt(state)
        if error.policy.throttled:
            return call.throttled_s > self._max_throttled_s
        return state.attempt_number - call.throttled_attempts >= self._max_attempts

    def fatal_message(self, call: Call, error: CallError, answers: Answers) -> str | None:
        """Return why every other request would fail too; None if this failure concerns its own call only.

        Args:
            call: the failed one.
            error: why the call failed.
            answers: what the service answered until now.
        """
        if error.policy.fatal and not (error.policy.may_concern_one_prompt and answers.explain_fatal()):
            return str(error)
        if error.type == UNREACHABLE and not answers.any:
            return str(error)
        answered_at = answers.last_at
        if _asks_too_long(error):
            return f"{error}: the service asks to wait {error.retry_after_s:.0f} s, which is too long: resume later"
        no_answer_since = answered_at is None or answered_at < (call.throttled_at or 0.0)
        if error.policy.throttled and no_answer_since and call.throttled_s > self._max_throttled_s:
            return (
                f"{error}: the service has throttled every request for {call.throttled_s:.0f} s: resume later, with a "
                "smaller batch.size or limit: python -m runner.resume RUN batch.size=N limits.requests_per_minute=N"
            )
        return None


def should_retry(error: BaseException) -> bool:
    """Return whether sending the same request again may help."""
    if not isinstance(error, CallError):
        return False
    return error.policy.retryable and not error.policy.fatal and not _asks_too_long(error)


def jittered_wait_s(attempt: int) -> float:
    """Return an exponential wait with full jitter, so that calls that failed together do not return together."""
    max_wait_s = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2 ** min(attempt - 1, _MAX_DOUBLINGS))
    return random.uniform(0, max_wait_s)  # noqa: S311 - spreads requests, guards nothing


def failed_attempt(state: tenacity.RetryCallState) -> tuple[Call, CallError]:
    """Return the call whose attempt failed, and the error: `should_retry` lets nothing but a CallError through."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, CallError)  # noqa: S101 - see above
    call: Call = state.args[0]
    return call, error


def log_retry(state: tenacity.RetryCallState) -> None:
    """Log that a call is sent again."""
    call, error = failed_attempt(state)
    ids = ", ".join(prompt.id for prompt in call.prompts)
    log.debug("prompt %s: attempt %d: %s; again in %.2f s", ids, state.attempt_number, error, state.upcoming_sleep)


def _asks_too_long(error: CallError) -> bool:
    return error.retry_after_s is not None and not error.retry_after_s <= _MAX_RETRY_AFTER_S  # a NaN is too long
