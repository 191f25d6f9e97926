"""Sends requests that block, of which there are few (batch jobs), and sends them again where that may help."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from runner.dispatch.retry import jittered_wait_s
from runner.providers.errors import CallError

T = TypeVar("T")
_SLICE_S = 0.1
"""How long a wait takes to see that the run is to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockingRequests:
    """How blocking requests are sent.

    Attributes:
        max_attempts: for every request.
        should_stop: whether the run is to stop: then no request is sent again.
    """

    max_attempts: int
    should_stop: Callable[[], bool]

    def send(self, request: Callable[..., T], *arguments: object, retry_throttled: bool = True) -> T:
        """Call a provider's method, again after an error that may pass.

        Args:
            request: the method.
            arguments: its arguments.
            retry_throttled: whether a throttled request is sent again as well.

        Raises:
            CallError: the last attempt's.
        """

        def may_help(error: BaseException) -> bool:
            return (
                isinstance(error, CallError)
                and error.policy.retryable
                and (retry_throttled or not error.policy.throttled)
            )

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(may_help),
            stop=self._is_last_attempt,
            wait=_wait_s,
            sleep=self.sleep,
            reraise=True,
        )(request, *arguments)

    def sleep(self, seconds: float) -> None:
        """Wait, unless the run is to stop."""
        end = time.monotonic() + seconds
        while not self.should_stop() and (left := end - time.monotonic()) > 0:
            time.sleep(min(_SLICE_S, left))

    def _is_last_attempt(self, state: tenacity.RetryCallState) -> bool:
        return self.should_stop() or state.attempt_number >= self.max_attempts


def _wait_s(state: tenacity.RetryCallState) -> float:
    """Return the service's own wait where it asks for a longer one."""
    error = state.outcome.exception() if state.outcome else None
    requested_s = error.retry_after_s if isinstance(error, CallError) else None
    return max(requested_s or 0.0, jittered_wait_s(state.attempt_number))
