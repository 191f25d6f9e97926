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
_FIRST_WAIT_S, _MAX_WAIT_S, _MAX_DOUBLINGS = 0.5, 60.0, 7


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

    def fatal_message(self, call: Call, error: CallError, *, answered_at: float | None) -> str | None:
        """Return why every other request would fail too; None if this failure concerns its own call only.

        Args:
            call: the failed one.
            error: why the call failed.
            answered_at: when the service last answered any request, by the call's clock.
        """
        if error.policy.fatal or (error.type == UNREACHABLE and answered_at is None):
            return str(error)
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
