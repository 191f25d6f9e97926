"""Attempts, rate limits and budget: wraps a provider's calls. Knows no service, no files and no MLflow.

One pause serves all: a call that the service throttled holds every other call back for as long as the service asked, so
that the same lesson is not learnt `batch.size` times over.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import tenacity
from aiolimiter import AsyncLimiter

from runner.config import GenerationParams, LimitsConfig, RunConfig
from runner.errors import AccessError, BudgetError, ConfigError, ServiceError
from runner.interrupts import Stop
from runner.pricing import Price, price_of
from runner.providers.base import UNREACHABLE, CallError, ConcurrentProvider, ListProvider, Provider
from runner.records import Completion, ErrorInfo, Failure, Outcome, Prompt, Stopwatch, Timing
from runner.window import Window

log = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
_FIRST_WINDOW = 4
_LOOK_S = 0.2
"""How often a waiting call looks whether the run is to end."""
_CHARACTERS_A_TOKEN = 4
"""A rule of thumb for English, to set tokens aside before a request; what is billed is the service's own count."""


Calls = Any
"""What a mode calls: a provider, or one whose calls are paced. It has the protocol of the mode that was chosen."""


class Paced:
    """A provider whose calls are paced. It has the calls of both request modes, over one and the same pacing.

    Args:
        provider: one that answers `generate` or `generate_list`.
        limits: attempts, timeout, requests and tokens per minute, and the budget.
        price: what tokens cost, if that is known.
        stop: asks for the end: nothing more is sent, and what only waits to be sent is given up.
        window: finds how many requests may be in flight; None leaves that to the mode.

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
    ) -> None:
        if limits.max_cost_usd is not None and price is None:
            raise ConfigError(
                f"limits.max_cost_usd={limits.max_cost_usd} needs the model's price, which is not known: set "
                "model.price={input_usd_per_million: X, output_usd_per_million: Y} or leave limits.max_cost_usd unset"
            )
        self.provider: Any = provider
        self._model_id = model_id
        self._limits = limits
        self._budget = _Budget(limits.max_cost_usd, price)
        self._requests = _per_minute(limits.requests_per_minute)
        self._tokens = _per_minute(limits.tokens_per_minute)
        self._resume_at = 0.0
        self._window = window
        self._answered = False
        self._stop = stop
        self._splits = True
        self._runner: asyncio.Runner | None = None
        self._connections = AsyncExitStack()

    @property
    def path(self) -> Sequence[tuple[int, int]]:
        """How many requests were allowed in flight, from how many answers on; empty where the mode decides."""
        return self._window.path if self._window else ()

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
        return await self._call(_CallState((prompt,), params), lambda: self.provider.generate(prompt, params))

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Outcome]:
        """Return the outcomes of one list request; raises what `generate` raises.

        A list that fails as a whole is sent again in halves, so that one poisonous prompt fails alone.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
            self._runner.run(self.__aenter__())
        outcomes = self._runner.run(self._call_list(_CallState(prompts, params)))
        if not any(isinstance(outcome, Completion) for outcome in outcomes):
            self._splits = False  # each failed alone as well: it is not the prompts
        return outcomes

    def close(self) -> None:
        """Give up the connections of `generate_batch`."""
        if self._runner is not None:
            self._runner.run(self.__aexit__(None, None, None))
            self._runner.close()
            self._runner = None

    async def _call_list(self, state: "_CallState") -> Sequence[Outcome]:
        outcomes = await self._call(state, lambda: self.provider.generate_list(state.prompts, state.params))
        if not (self._splits and state.may_be_one_prompts_fault):
            return outcomes
        log.debug("%d prompts in one request failed: asking again in halves", len(state.prompts))
        return [outcome for half in state.halves() for outcome in await self._call_list(half)]

    async def _call(self, state: "_CallState", send: Callable[[], Awaitable[Sequence[Outcome]]]) -> Sequence[Outcome]:
        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._limits.max_attempts),
            retry=tenacity.retry_if_exception(_may_be_repeated),
            wait=self._wait,
            before_sleep=self._note_retry,
            sleep=self._sleep,
            reraise=True,
        )
        state.round = await self._window.enter() if self._window else 0
        try:
            outcomes: Sequence[Outcome] = await attempts(self._attempt, state, send)
        except CallError as error:
            self._give_up(error)
            state.error = error
            return [state.failure(prompt, error, self._model_id) for prompt in state.prompts]
        finally:
            if self._window:
                await self._window.leave()
        return [state.completed(outcome) for outcome in outcomes]

    async def _attempt(
        self, state: "_CallState", send: Callable[[], Awaitable[Sequence[Outcome]]]
    ) -> Sequence[Outcome]:
        await self._wait_for_room(state.tokens)
        self._go_on()
        reserved = self._budget.reserve(state.input_tokens, state.output_tokens)
        state.begin_attempt()
        outcomes: Sequence[Outcome] = ()
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                outcomes = await send()
        except TimeoutError:
            self._budget.charge(reserved)
            message = f"no answer within limits.timeout_s={self._limits.timeout_s}"
            raise CallError("Timeout", message, retryable=True) from None
        except CallError as error:
            if not error.unbilled:
                self._budget.charge(reserved)
            raise
        finally:
            self._budget.settle(reserved, outcomes)
        self._answered = True
        return outcomes

    async def _wait_for_room(self, tokens: float) -> None:
        if self._requests is not None:
            await self._patiently(self._requests.acquire())
        while self._tokens is not None and tokens > 0:
            part = min(tokens, self._tokens.max_rate)
            await self._patiently(self._tokens.acquire(part))
            tokens -= part
        clock = asyncio.get_running_loop()
        while (pause_s := self._resume_at - clock.time()) > 0:
            await self._sleep(pause_s)

    async def _sleep(self, seconds: float) -> None:
        await self._patiently(asyncio.sleep(seconds))

    async def _patiently(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for leave to send, unless the run is asked to end meanwhile."""
        task = asyncio.ensure_future(waiting)
        try:
            while not (await asyncio.wait({task}, timeout=_LOOK_S))[0]:
                self._go_on()
        finally:
            task.cancel()

    def _go_on(self) -> None:
        """Raise why nothing more is to be sent, if so: an error that every request would meet, or a wish to end."""
        if self._stop.reason is not None:
            raise self._stop.reason

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Return how long this call waits: what the service asked for, else exponential with full jitter."""
        error = state.outcome.exception() if state.outcome else None
        longest_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (state.attempt_number - 1))
        jitter_s = random.uniform(0, longest_s)  # noqa: S311 - spreads requests, guards nothing
        asked_s = error.retry_after_s if isinstance(error, CallError) else None
        wait_s = jitter_s if asked_s is None else asked_s + min(jitter_s, 0.1 * asked_s)
        if isinstance(error, CallError) and error.throttled:
            if self._window:
                call: _CallState = state.args[0]
                self._window.throttled(call.round)
                call.round = -1  # a request is one witness
            pause_s = jitter_s if asked_s is None else asked_s
            self._resume_at = max(self._resume_at, asyncio.get_running_loop().time() + pause_s)
        return wait_s

    def _note_retry(self, state: tenacity.RetryCallState) -> None:
        call: _CallState = state.args[0]
        error = state.outcome.exception() if state.outcome else None
        prompts = ", ".join(prompt.id for prompt in call.prompts)
        log.debug(
            "prompt %s: attempt %d: %s; again in %.2f s", prompts, state.attempt_number, error, state.upcoming_sleep
        )

    def _give_up(self, error: CallError) -> None:
        """Let one failure be one failure, unless every other request would meet it too."""
        if not error.fatal and (self._answered or error.kind != UNREACHABLE):
            return
        self._stop.request(ServiceError(str(error)) if self._answered else AccessError(str(error)))
        self._go_on()


class _CallState:
    """One call through its attempts: what it reserves, when it began, how often it was sent."""

    def __init__(
        self, prompts: Sequence[Prompt], params: GenerationParams, *, after: "_CallState | None" = None
    ) -> None:
        self.prompts, self.params = prompts, params
        self.error: CallError | None = None
        self.input_tokens = sum(map(estimate_tokens, prompts))
        self.output_tokens = params.max_tokens * params.n * len(prompts)
        self.tokens = self.input_tokens + self.output_tokens
        self.round = 0
        self._attempts: int = after._attempts if after else 0
        self._watch: Stopwatch | None = after._watch if after else None
        self._began: datetime | None = after._began if after else None

    @property
    def may_be_one_prompts_fault(self) -> bool:
        """Whether the call failed, held several prompts, and would not have failed with any others too."""
        return (
            len(self.prompts) > 1
            and self.error is not None
            and not (self.error.throttled or self.error.refuses_lists or self.error.kind == UNREACHABLE)
        )

    def halves(self) -> tuple["_CallState", "_CallState"]:
        """Return two calls for this one; their time and attempts go on from its."""
        middle = len(self.prompts) // 2
        first, second = self.prompts[:middle], self.prompts[middle:]
        return _CallState(first, self.params, after=self), _CallState(second, self.params, after=self)

    def begin_attempt(self) -> None:
        self._attempts += 1
        if self._watch is None:
            self._watch = Stopwatch()
            self._began = self._watch.stop().started_at

    def completed(self, outcome: Outcome) -> Outcome:
        """Return the outcome with the time and the attempts since its first attempt."""
        return replace(outcome, attempts=self._attempts, timing=_since(self._began, outcome.timing))

    def failure(self, prompt: Prompt, error: CallError, model_id: str) -> Failure:
        watch = self._watch or Stopwatch()
        return Failure(
            prompt_id=prompt.id,
            error=ErrorInfo(type=error.kind, message=error.message, retryable=error.retryable),
            timing=watch.stop(),
            model=model_id,
            attempts=max(1, self._attempts),
        )


class _Budget:
    """What was spent and what is under way, in US dollars."""

    def __init__(self, limit_usd: float | None, price: Price | None) -> None:
        self._limit_usd, self._price = limit_usd, price
        self._spent_usd = self._reserved_usd = 0.0

    def reserve(self, input_tokens: int, output_tokens: int) -> float:
        """Set aside the most that a request can cost."""
        if self._price is None or self._limit_usd is None:
            return 0.0
        most_usd = self._price.cost_usd(input_tokens, output_tokens)
        if self._spent_usd + self._reserved_usd + most_usd > self._limit_usd:
            raise BudgetError(
                f"stopped before a request that could pass limits.max_cost_usd={self._limit_usd}: "
                f"${self._spent_usd:.6f} are spent, ${self._reserved_usd:.6f} set aside for requests in flight, and "
                f"this one could cost ${most_usd:.6f}: raise the limit, or lower generation.max_tokens"
            )
        self._reserved_usd += most_usd
        return most_usd

    def charge(self, most_usd: float) -> None:
        """Count as spent what a request may have cost whose answer never came."""
        self._spent_usd += most_usd

    def settle(self, reserved_usd: float, outcomes: Sequence[Outcome]) -> None:
        """Put what was really spent in the place of what was set aside."""
        self._reserved_usd -= reserved_usd
        if self._price is not None:
            self._spent_usd += cost_usd(self._price, outcomes)


def cost_usd(price: Price, outcomes: Sequence[Outcome]) -> float:
    """Return what these outcomes cost: a prompt's input once, every answer's output."""
    done = [outcome for outcome in outcomes if isinstance(outcome, Completion)]
    input_tokens = sum(outcome.usage.input_tokens for outcome in done if outcome.choice == 0)
    return price.cost_usd(input_tokens, sum(outcome.usage.output_tokens for outcome in done))


def estimate_tokens(prompt: Prompt) -> int:
    """Return about how many tokens a prompt is, without a tokenizer."""
    return sum(len(message.content) for message in prompt.messages) // _CHARACTERS_A_TOKEN + 4 * len(prompt.messages)


def paced(provider: Provider, config: RunConfig, stop: Stop) -> Calls:
    """Wrap a provider whose mode sends requests; any other is returned as it is.

    Raises:
        ConfigError: a limit is set that has no meaning for calls inside this process, or a budget without a price.
    """
    sends = config.batch.mode == "concurrent" or (config.batch.mode == "static" and isinstance(provider, ListProvider))
    if sends and isinstance(provider, ConcurrentProvider | ListProvider):
        window = Window(_FIRST_WINDOW, config.batch.count) if config.batch.size == "auto" else None
        return Paced(
            provider, config.model.id, config.limits, price_of(config.model, provider.price_list), stop, window
        )
    for name in ("requests_per_minute", "tokens_per_minute", "max_cost_usd"):
        if (value := getattr(config.limits, name)) is not None:
            raise ConfigError(
                f"limits.{name}={value}: mode {config.batch.mode!r} of provider {config.provider.name!r} sends no "
                "requests: leave it unset"
            )
    return provider


def _may_be_repeated(error: BaseException) -> bool:
    return isinstance(error, CallError) and error.retryable and not error.fatal


def _per_minute(limit: float | None) -> AsyncLimiter | None:
    """Spread a minute's allowance over its seconds: a bucket of a whole minute would let two minutes' worth through."""
    return None if limit is None else AsyncLimiter(max(1.0, limit / 60), max(1.0, 60 / limit))


def _since(began: datetime | None, timing: Timing) -> Timing:
    if began is None or began >= timing.started_at:
        return timing
    earlier_s = (timing.started_at - began).total_seconds()
    first_s = timing.time_to_first_token_s
    return Timing(
        started_at=began,
        latency_s=timing.latency_s + earlier_s,
        time_to_first_token_s=None if first_s is None else first_s + earlier_s,
    )
