"""Concurrent requests: one prompt a request, `batch.size` requests in flight."""

import asyncio
import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence

from runner.batching.base import Mode, PendingPrompts
from runner.config.schema import BatchConfig, GenerationParams
from runner.dispatch.stop import Stopped
from runner.providers.protocols import ConcurrentProvider
from runner.types import Generated, Outcome, Prompt

_MAX_BACKLOG = 4096
"""When so many answered requests wait to be written, no further request is sent. Bounds memory."""

_STEPS_TO_SEND = 4
"""Turns of the event loop until a request is on the wire: start the task, take or open a connection, write."""


def generate(
    provider: ConcurrentProvider, pending: PendingPrompts, params: GenerationParams, config: BatchConfig
) -> Generator[Sequence[Outcome]]:
    """Yield a request's outcomes as it finishes; `Outcome.batch` is the prompt's number among all prompts.

    The event loop has a thread of its own, so that writing an outcome never delays a request or its timing. Closing
    the generator early cancels the requests in flight. After a stop request no further request is sent, and the
    outcomes of those in flight are yielded.
    """
    requests = _Requests(provider, pending, params, config.count)
    thread = threading.Thread(target=requests.run, name="requests")
    thread.start()
    try:
        yield from requests.outcomes()
    finally:
        requests.cancel()
        thread.join()
    if requests.error is not None:
        raise requests.error


class _Requests:
    """The requests of one run. `run` is for a thread of its own; the other methods are for the caller's thread.

    Attributes:
        error: the exception that ended the requests' thread; None while the thread runs, and if none did.
    """

    def __init__(
        self, provider: ConcurrentProvider, pending: PendingPrompts, params: GenerationParams, size: int
    ) -> None:
        self._provider, self._params = provider, params
        self._pending, self._numbered = pending, pending.numbered()
        self._workers = min(size, len(pending.prompts))
        self._finished: queue.SimpleQueue[Sequence[Outcome] | None] = queue.SimpleQueue()
        self._backlog = threading.Semaphore(_MAX_BACKLOG)
        self._cancelled = threading.Event()
        self._cancel_task: Callable[[], object] | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Send all requests; put their outcomes into the queue, and None at the end."""
        try:
            asyncio.run(self._send_all())
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self.error = error
        finally:
            self._finished.put(None)

    def outcomes(self) -> Iterator[Sequence[Outcome]]:
        """Yield the outcomes of each request as it finishes."""
        while (outcomes := self._finished.get()) is not None:
            self._backlog.release()
            yield outcomes

    def cancel(self) -> None:
        """Stop sending and cancel the requests in flight. Has no effect once all requests have ended."""
        self._cancelled.set()
        self._backlog.release(_MAX_BACKLOG)
        if self._cancel_task is not None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed: all requests have ended
                self._cancel_task()

    async def _send_all(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        self._send_lock = asyncio.Lock()
        if task is not None:
            self._cancel_task = functools.partial(loop.call_soon_threadsafe, task.cancel)
        async with contextlib.AsyncExitStack() as connections:
            if isinstance(self._provider, contextlib.AbstractAsyncContextManager):
                await connections.enter_async_context(self._provider)
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._workers):
                    workers.create_task(self._work())

    async def _work(self) -> None:
        """Send one prompt after another."""
        for number, prompt in self._numbered:
            if self._cancelled.is_set():
                return
            try:
                result = await self._send(prompt)
            except Stopped:
                return
            outcomes = self._pending.finish_call([(prompt, result)], batch=number)
            self._backlog.acquire()
            self._finished.put(outcomes)

    async def _send(self, prompt: Prompt) -> Generated:
        """Send one prompt and return its result. Requests leave one by one.

        Building a request takes this thread a millisecond or two. In a burst of 256 requests, each would wait until all
        are built, and its time to first token would measure this process instead of the service.

        The call is made before the lock is taken: a prompt that waits for the lock is queued.
        """
        call = self._provider.generate(prompt, self._params)
        request: asyncio.Task[Generated] | None = None
        try:
            async with self._send_lock:
                request = asyncio.ensure_future(call)
                for _ in range(_STEPS_TO_SEND):
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            if request is None:
                call.close()
            else:
                request.cancel()
            raise
        return await request


CONCURRENT = Mode(
    name="concurrent",
    protocol=ConcurrentProvider,
    request_protocol=ConcurrentProvider,
    size_unit="requests in flight",
    generate=generate,
    size_is_requests=True,
)
