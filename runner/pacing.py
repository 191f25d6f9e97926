"""Attempts: wraps a provider's calls and repeats what may pass. Knows no service, no files and no MLflow.

One pause serves all: a call that the service throttled holds every other call back for as long as the service asked, so
that the same lesson is not learnt `batch.size` times over.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import tenacity

from runner.admission import Admission
from runner.budget import Budget
from runner.call import Call
from runner.config import GenerationParams, LimitsConfig, RunConfig
from runner.descriptors import connections_for
from runner.errors import AccessError, ConfigError, RunnerError, ServiceError
from runner.interrupts import Stop
from runner.pricing import Price, price_of
from runner.providers.base import UNREACHABLE, CallError, ConcurrentProvider, ListProvider, Provider
from runner.records import Completion, Outcome, Prompt
from runner.window import Window

log = logging.getLogger(__name__)

PATIENCE_S = 900.0
"""How long a prompt may be throttled before it is given up; a service that answers nothing else ends the run."""
_LONGEST_ASKED_S = 3600.0
"""A service that asks for a longer wait is not waited for."""
_FIRST_WAIT_S, _LONGEST_WAIT_S, _DOUBLINGS = 0.5, 60.0, 7
_FIRST_WINDOW = 4
_FAILED_ALONE = 3
"""So many prompts in a row that failed alone as well: it is not the prompts, and lists are split no further."""

Send = Callable[[], Awaitable[Sequence[Outcome]]]


class Paced:
    """A provider whose calls are paced. It has the calls of both request modes, over one and the same pacing.

    Args:
        provider: one that answers `generate` or `generate_list`.
        limits: attempts, timeout, requests and tokens per minute, and the budget.
        price: what tokens cost, if that is known.
        stop: asks for the end: nothing more is sent, and what only waits to be sent is given up.
        window: finds how many requests may be in flight; None leaves that to the mode.
        patience_s: how long a call may be throttled; throttled attempts do not count for `limits.max_attempts`.

    Raises:
        ConfigError: a budget is set and the price is not known.
    """

    def __init__(
        self,
        provider: Provider,
        model_id: str,
        limits: LimitsConfig,
        price: Price | None,
        stop: Stop,
        window: Window | None = None,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.provider: Any = provider
        self._model_id = model_id
        self._limits = limits
        self._patience_s = patience_s
        self._budget = Budget(limits.max_cost_usd, price)
        self._window = window
        self._stop = stop
        self._admission = Admission(limits, self._budget, window, stop)
        self._answered_at: float | None = None
        self._failed_alone = 0
        self._runner: asyncio.Runner | None = None
        self._connections = AsyncExitStack()

    @property
    def path(self) -> Sequence[tuple[int, int]]:
        """How many requests were in flight, from how many answers on; empty where the mode decides."""
        return self._window.path if self._window else ()

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Count against the budget what was generated before; without a budget the outcomes are not even read."""
        self._budget.count(outcomes)

    async def __aenter__(self) -> Self:
        if hasattr(self.provider, "__aenter__"):
            await self._connections.enter_async_context(self.provider)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connections.aclose()

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Sequence[Outcome]:
        """Return the prompt's outcomes, or a failure once no attempt is left.

        Raises:
            AccessError: the service has answered nothing, and will not.
            ServiceError: the service will not answer any further request.
            BudgetError: this request could pass the budget; nothing was sent.
        """
        return await self._call(Call((prompt,), params), lambda: self.provider.generate(prompt, params))

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Outcome]:
        """Return the outcomes of one list request; raises what `generate` raises.

        A list that fails as a whole is sent again in halves, so that one poisonous prompt fails alone.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
            self._runner.run(self.__aenter__())
        return self._runner.run(self._call_list(Call(prompts, params)))

    def close(self) -> None:
        """Give up the connections of `generate_batch`."""
        if self._runner is not None:
            self._runner.run(self.__aexit__(None, None, None))
            self._runner.close()
            self._runner = None

    async def _call_list(self, call: Call) -> Sequence[Outcome]:
        outcomes = await self._call(call, lambda: self.provider.generate_list(call.prompts, call.params))
        if any(isinstance(outcome, Completion) for outcome in outcomes):
            self._failed_alone = 0
        elif len(call.prompts) == 1:
            self._failed_alone += 1
        if self._failed_alone >= _FAILED_ALONE or not call.may_be_one_prompts_fault:
            return outcomes
        log.debug("%d prompts in one request failed: asking again in halves", len(call.prompts))
        return await self._call_halves(call)

    async def _call_halves(self, call: Call) -> Sequence[Outcome]:
        """Return the outcomes of both halves, or if the run is asked to end, of what was answered: it is paid."""
        outcomes: list[Outcome] = []
        for half in call.halves():
            try:
                outcomes += await self._call_list(half)
            except RunnerError:
                if not outcomes:
                    raise
                break
        return outcomes

    async def _call(self, call: Call, send: Send) -> Sequence[Outcome]:
        attempts = tenacity.AsyncRetrying(
            stop=self._is_enough,
            retry=tenacity.retry_if_exception(_may_be_repeated),
            wait=self._wait,
            before_sleep=_note_retry,
            sleep=self._admission.sleep,
            reraise=True,
        )
        try:
            outcomes: Sequence[Outcome] = await attempts(self._attempt, call, send)
        except CallError as error:
            self._give_up(call, error)
            return call.failures(error, self._model_id)
        return [call.completed(outcome) for outcome in outcomes]

    async def _attempt(self, call: Call, send: Send) -> Sequence[Outcome]:
        place = await self._admission.enter(call)
        call.begin_attempt()
        outcomes: Sequence[Outcome] = ()
        lost = False
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                outcomes = await send()
        except TimeoutError:
            lost = True
            message = f"no answer within limits.timeout_s={self._limits.timeout_s}"
            raise CallError("Timeout", message, retryable=True) from None
        except CallError as error:
            lost = not error.unbilled
            if error.throttled:
                call.note_throttled()
                self._admission.throttled(place)
            raise
        finally:
            self._admission.leave(place, outcomes, lost=lost)
        self._answered_at = time.perf_counter()
        return outcomes

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        """Return whether a call has no attempt left. What is throttled was not attempted; it has its own end."""
        call, error = _of(state)
        if error.throttled:
            return call.throttled_s > self._patience_s
        return state.attempt_number - call.throttled >= self._limits.max_attempts

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Return how long this call waits: what the service asked for, else exponential with full jitter."""
        _, error = _of(state)
        longest_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(state.attempt_number - 1, _DOUBLINGS))
        jitter_s = random.uniform(0, longest_s)  # noqa: S311 - spreads requests, guards nothing
        asked_s = None if error.retry_after_s is None else max(0.0, error.retry_after_s)
        if error.throttled:
            self._admission.pause(jitter_s if asked_s is None else asked_s, error.kind)
        return jitter_s if asked_s is None else asked_s + min(jitter_s, 0.1 * asked_s)

    def _give_up(self, call: Call, error: CallError) -> None:
        """Let one failure be one failure, unless every other request would meet it too."""
        if said := self._ends_all(call, error):
            self._stop.request(AccessError(said) if self._answered_at is None else ServiceError(said))
            self._admission.go_on()

    def _ends_all(self, call: Call, error: CallError) -> str | None:
        if error.fatal or (error.kind == UNREACHABLE and self._answered_at is None):
            return str(error)
        if _asks_too_long(error):
            return f"{error}: the service asks to wait {error.retry_after_s:.0f} s, which is too long: go on later"
        nothing_since = (self._answered_at or 0.0) < (call.throttled_at or 0.0)
        if error.throttled and nothing_since and call.throttled_s > self._patience_s:
            return (
                f"{error}: the service has throttled every request for {call.throttled_s:.0f} s: go on later, with a "
                "smaller batch.size or limits.requests_per_minute"
            )
        return None


Calls = Provider | Paced
"""What a mode calls: a provider, or one whose calls are paced. It has the protocol of the mode that was chosen."""


def paced(provider: Provider, config: RunConfig, stop: Stop) -> Calls:
    """Wrap a provider whose mode sends requests; any other is returned as it is.

    Raises:
        ConfigError: a limit is set that has no meaning for calls inside this process, a budget without a price, or more
            requests in flight than this process may have connections.
    """
    sends = config.batch.mode == "concurrent" or (config.batch.mode == "static" and isinstance(provider, ListProvider))
    if sends and isinstance(provider, ConcurrentProvider | ListProvider):
        price = price_of(config.model, provider.price_list)
        return Paced(provider, config.model.id, config.limits, price, stop, _window(provider, config))
    for name in ("requests_per_minute", "tokens_per_minute", "max_cost_usd"):
        if (value := getattr(config.limits, name)) is not None:
            raise ConfigError(
                f"limits.{name}={value}: mode {config.batch.mode!r} of provider {config.provider.name!r} sends no "
                "requests: leave it unset"
            )
    return provider


def _window(provider: Provider, config: RunConfig) -> Window | None:
    most = config.batch.count
    if config.batch.mode == "concurrent" and not provider.is_local:
        most = connections_for(config.batch)
    return Window(_FIRST_WINDOW, most) if config.batch.size == "auto" else None


def _of(state: tenacity.RetryCallState) -> tuple[Call, CallError]:
    """Return whose attempt it was, and how it failed: `_may_be_repeated` lets nothing else through."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, CallError)  # noqa: S101 - see above
    call: Call = state.args[0]
    return call, error


def _may_be_repeated(error: BaseException) -> bool:
    return isinstance(error, CallError) and error.retryable and not error.fatal and not _asks_too_long(error)


def _asks_too_long(error: CallError) -> bool:
    return error.retry_after_s is not None and not error.retry_after_s <= _LONGEST_ASKED_S  # a NaN is too long


def _note_retry(state: tenacity.RetryCallState) -> None:
    call, error = _of(state)
    again_s = state.upcoming_sleep
    log.debug("prompt %s: attempt %d: %s; again in %.2f s", call.name, state.attempt_number, error, again_s)
