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

_BACKLOG = 4096
"""Answered requests that may wait to be kept before requests wait too: bounds memory, out of reach of any service."""

_STEPS_TO_LEAVE = 4
"""Turns of the event loop until a request is on the wire: to begin, to take or open a connection, to write."""


def generate(
    provider: ConcurrentProvider, pending: PendingPrompts, params: GenerationParams, config: BatchConfig
) -> Generator[Sequence[Outcome]]:
    """Yield a request's outcomes as it finishes; `Outcome.batch` is its prompt's number in the set.

    The event loop has a thread of its own, so that writing an outcome never delays a request or its timing. Closing
    the iterator early cancels what is in flight. A run that is to stop sends nothing more; what is in flight is
    awaited and yielded.
    """
    requests = _Requests(provider, pending, params, config.count)
    thread = threading.Thread(target=requests.run, name="requests")
    thread.start()
    try:
        yield from requests.outcomes()
    finally:
        requests.cancel()
        thread.join()
    requests.raise_error()


class _Requests:
    """The requests of one run. `run` belongs to their own thread, everything else to the caller's."""

    def __init__(
        self, provider: ConcurrentProvider, pending: PendingPrompts, params: GenerationParams, size: int
    ) -> None:
        self._provider, self._params = provider, params
        self._pending, self._waiting = pending, pending.numbered()
        self._size = min(size, len(pending.prompts))
        self._done: queue.SimpleQueue[Sequence[Outcome] | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_BACKLOG)
        self._cancelled = threading.Event()
        self._stop: Callable[[], object] | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._send_all())
        except BaseException as error:
            self._error = error
        finally:
            self._done.put(None)

    def outcomes(self) -> Iterator[Sequence[Outcome]]:
        while (outcomes := self._done.get()) is not None:
            self._room.release()
            yield outcomes

    def cancel(self) -> None:
        """Stop sending and give up what is in flight; nothing to do once all is done."""
        self._cancelled.set()
        self._room.release(_BACKLOG)
        if self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already: it was done
                self._stop()

    def raise_error(self) -> None:
        """Raise in the caller's thread what ended the requests' thread, if it was an error."""
        error = self._error
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None:
            raise error

    async def _send_all(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        self._start_line = asyncio.Lock()
        if task is not None:
            self._stop = functools.partial(loop.call_soon_threadsafe, task.cancel)
        async with contextlib.AsyncExitStack() as connections:
            if isinstance(self._provider, contextlib.AbstractAsyncContextManager):
                await connections.enter_async_context(self._provider)
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._size):
                    workers.create_task(self._send_one_after_another())

    async def _start(self, prompt: Prompt) -> Generated:
        """Let requests leave one by one, and wait for this one's result.

        Building a request takes this thread a millisecond or two. In a burst of 256, each would wait for the building
        of all, and its time to first token would tell of this process instead of the service.
        """
        async with self._start_line:
            request = asyncio.ensure_future(self._provider.generate(prompt, self._params))
            try:
                for _ in range(_STEPS_TO_LEAVE):
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                request.cancel()
                raise
        return await request

    async def _send_one_after_another(self) -> None:
        for number, prompt in self._waiting:
            if self._cancelled.is_set():
                return
            try:
                result = await self._start(prompt)
            except Stopped:
                return
            outcomes = self._pending.outcomes([(prompt, result)], batch=number)
            self._room.acquire()
            self._done.put(outcomes)


CONCURRENT = Mode(
    name="concurrent",
    protocol=ConcurrentProvider,
    request_protocol=ConcurrentProvider,
    size_unit="requests in flight",
    call=generate,
    size_is_requests=True,
)
