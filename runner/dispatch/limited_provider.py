"""A provider whose requests keep to the account's limits: attempts, pauses, requests and tokens a minute, budget.

Its methods are those of a provider, so that a batch mode calls either in the same way.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Self

import tenacity

from runner.config.schema import GenerationParams, LimitsConfig
from runner.dispatch.call import Call
from runner.dispatch.gate import RequestGate
from runner.dispatch.retry import Answers, RetryPolicy, failed_attempt, jittered_wait_s, log_retry, should_retry
from runner.dispatch.stop import Stopped, StopRequest
from runner.errors import AccessError, RunnerError, ServiceError
from runner.providers.errors import RETRY, CallError, too_many_open_files
from runner.providers.protocols import BlockingProvider, ConcurrentProvider, ListProvider, Provider
from runner.text import excerpt, first_line
from runner.types import Generated, Prompt

log = logging.getLogger(__name__)

_MAX_FAILED_ALONE = 3
"""If so many prompts in a row fail in a request of their own, the prompts are not the reason: lists are no longer
split."""

Send = Callable[[], Awaitable[Sequence[Generated]]]


class LimitedProvider:
    """A provider whose requests are limited: static batches of a service that takes lists, and concurrent requests.

    Args:
        provider: a ConcurrentProvider or a ListProvider.
        model_id: the model that an error is recorded for.
        limits: attempts and timeout.
        gate: decides when an attempt may leave.
        stop: ends sending; a fatal error becomes its reason.
        max_throttled_s: how long a call may be throttled.
        clock: seconds, on the clock by which waits are measured.

    Attributes:
        answers: what the service answered; of a resumed run, by earlier processes too.
        cpu_s: CPU seconds of the event loop's thread, while the loop ran; complete once requests are no longer sent.
    """

    def __init__(
        self,
        provider: Provider,
        model_id: str,
        limits: LimitsConfig,
        gate: RequestGate,
        stop: StopRequest,
        *,
        max_throttled_s: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if isinstance(provider, BlockingProvider):
            provider.set_timeout(limits.timeout_s)
        self._provider = provider
        self._concurrent = provider if isinstance(provider, ConcurrentProvider) else None  # once: it takes 30 us
        self._lists = provider if isinstance(provider, ListProvider) else None
        self._model_id = model_id
        self._timeout_s = limits.timeout_s
        self._retry = RetryPolicy(limits, max_throttled_s)
        self._gate, self._stop, self._clock = gate, stop, clock
        self.cpu_s = 0.0
        self._entered_cpu_s = 0.0
        self.answers = Answers()
        self._failed_alone = 0
        self._runner: asyncio.Runner | None = None
        self._connections = AsyncExitStack()

    def __enter__(self) -> Self:
        self._provider.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._runner is not None:
                self._runner.run(self._connections.aclose())
                self._runner.close()
                self._runner = None
        finally:
            self._provider.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        self._entered_cpu_s = time.thread_time()
        if isinstance(self._provider, AbstractAsyncContextManager):
            await self._connections.enter_async_context(self._provider)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu_s += time.thread_time() - self._entered_cpu_s
        await self._connections.aclose()

    def generate(self, prompt: Prompt, params: GenerationParams) -> Coroutine[Any, Any, Generated]:
        """Return the prompt's answers, or its error once no attempt is left. The prompt is queued before it is awaited.

        Raises:
            Stopped: no further request is to leave; the stop request has the reason.
        """
        return self._generate(Call((prompt,), params, clock=self._clock))

    async def _generate(self, call: Call) -> Generated:
        provider = self._concurrent
        assert provider is not None  # noqa: S101 - run.prepare refuses any other

        async def send() -> Sequence[Generated]:
            return [await provider.generate(call.prompts[0], call.params)]

        return (await self._call(call, send))[0]

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        """Return the results of one list request, in the prompts' order; fewer if the run is stopped meanwhile.

        A list that fails as a whole is sent again in halves, so that a prompt that the service refuses fails alone.

        Raises:
            Stopped: as for `generate`.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
            self._runner.run(self.__aenter__())
        started_cpu_s = time.thread_time()
        try:
            return self._runner.run(self._call_list(Call(prompts, params, clock=self._clock)))
        finally:
            self.cpu_s += time.thread_time() - started_cpu_s

    async def _call_list(self, call: Call) -> Sequence[Generated]:
        provider = self._lists
        assert provider is not None  # noqa: S101 - run.prepare refuses any other
        results = await self._call(call, lambda: provider.generate_list(call.prompts, call.params))
        if any(result.error is None for result in results):
            self._failed_alone = 0
        elif len(call.prompts) == 1:
            self._failed_alone += 1
        if self._failed_alone >= _MAX_FAILED_ALONE or not call.may_be_split:
            return results
        log.debug("%d prompts in one request failed: sending them again in halves", len(call.prompts))
        return await self._call_halves(call)

    async def _call_halves(self, call: Call) -> Sequence[Generated]:
        """Return the results of both halves; if the run is stopped meanwhile, the results until then: they are paid."""
        results: list[Generated] = []
        for half in call.halves():
            try:
                results += await self._call_list(half)
            except Stopped:
                if not results:
                    raise
                break
        return results

    async def _call(self, call: Call, send: Send) -> Sequence[Generated]:
        attempts = tenacity.AsyncRetrying(
            stop=self._retry.should_give_up,
            retry=tenacity.retry_if_exception(should_retry),
            wait=self._wait_s,
            before_sleep=log_retry,
            sleep=self._gate.sleep,
            reraise=True,
        )
        try:
            results: Sequence[Generated] = await attempts(self._attempt, call, send)
        except Stopped:
            if call.error is None or not call.lost_answers:
                raise
            return call.failed(call.error, self._model_id)  # its lost answers may be billed: they belong on record
        except CallError as error:
            if message := self._retry.fatal_message(call, error, self.answers):
                self._stop.request(ServiceError(message) if self.answers.any else AccessError(message))
                if not call.lost_answers:
                    raise Stopped from None
            return call.failed(error, self._model_id)
        return [call.completed(result) for result in results]

    async def _attempt(self, call: Call, send: Send) -> Sequence[Generated]:
        permit = await self._gate.acquire(call)
        call.start_attempt()
        results: Sequence[Generated] = ()
        try:
            results = await self._send(send)
        except CallError as error:
            call.fail_attempt(error)
            raise
        finally:
            self._gate.release(permit, results, call.error)
        self.answers.add(self._clock())
        return results

    async def _send(self, send: Send) -> Sequence[Generated]:
        """Send one attempt. Whatever goes wrong in it is this call's failure, and no other call's.

        Raises:
            CallError: the attempt has no answer.
            Stopped: the provider cannot work at all (a missing package, say); the stop request has its error.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await send()
        except TimeoutError:
            raise CallError("Timeout", f"no answer within limits.timeout_s={self._timeout_s}", RETRY) from None
        except CallError:
            raise
        except RunnerError as error:
            self._stop.request(error)
            raise Stopped from None
        except Exception as error:
            log.warning("a request failed in a way that nobody foresaw", exc_info=error)
            raise (too_many_open_files(error) or _unforeseen(error)) from error

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        """Return how long a call waits before its next attempt: the service's Retry-After, at least a jittered time.

        A service that asks for no wait at all is not asked again and again without one. After a throttled attempt all
        calls wait, so that not every worker triggers a 429 of its own.
        """
        _, error = failed_attempt(state)
        jitter_s = jittered_wait_s(state.attempt_number)
        retry_after_s = max(0.0, error.retry_after_s or 0.0)
        if error.policy.throttled:
            self._gate.pause(retry_after_s or jitter_s, error.type)
        elif retry_after_s:
            self._gate.log_wait(retry_after_s, error.type)
        return max(jitter_s, retry_after_s + min(jitter_s, 0.1 * retry_after_s))


def _unforeseen(error: Exception) -> CallError:
    message = f"{type(error).__name__}: {excerpt(first_line(error))}: this is a defect of the runner or an odd answer"
    return CallError("UnforeseenError", f"{message}; runner.log has the traceback")
