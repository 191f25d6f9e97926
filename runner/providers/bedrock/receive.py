"""Receives responses: a thread for each request, bodies within the bound of what was asked for, and their usage."""

import contextlib
import json
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from pydantic import ValidationError

from runner.providers.bedrock.wire import Body, ResponseAccumulator
from runner.providers.responses import (
    max_answer_bytes,
    max_answer_chunks,
    max_bytes_to_read,
    readable_usage,
    too_large,
)
from runner.types import Usage

Result = TypeVar("Result")


class RequestThreads:
    """Runs blocking calls in daemon threads, and knows which go on though nobody waits for them.

    A call that has timed out cannot be interrupted. In a thread pool, such a call would keep the next attempt from
    being sent, and the process from ending, until the SDK's read timeout.
    """

    def __init__(self) -> None:
        self._running = dict[threading.Thread, threading.Event]()

    def run(self, call: Callable[[], Result], abandoned: threading.Event) -> Future[Result]:
        """Run a call; `abandoned` is set once nobody waits for it."""
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            finally:
                self._running.pop(threading.current_thread(), None)

        thread = threading.Thread(target=work, name="bedrock", daemon=True)
        self._running[thread] = abandoned
        try:
            thread.start()
        except RuntimeError:
            del self._running[thread]
            raise
        return future

    def count_abandoned(self) -> int:
        """Return how many calls go on though nobody waits for them."""
        return sum(abandoned.is_set() for abandoned in list(self._running.values()))


class _BoundedRaw:
    """The raw response of urllib3, whose whole body botocore reads before it returns: `stream` ends at the bound."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self) -> Iterator[bytes]:
        """Yield the body.

        Raises:
            CallError: the body is longer than `responses.bounded_answer` allows.
        """
        max_bytes = left = max_bytes_to_read.get()
        for piece in self._raw.stream():
            left -= len(piece)
            if left < 0:
                self._raw.close()
                raise too_large(f"more than {max_bytes:,} bytes")
            yield piece


def bound_bodies(client: Any) -> None:
    """Bound what botocore reads by itself: the bodies of Converse and of errors. Streams are read event by event."""
    send = client._endpoint.http_session.send  # botocore's hook before sending may send, and nothing else can

    def send_bounded(request: Any, event_name: str, **_: Any) -> Any:
        request.stream_output = True  # do not read the body yet
        response = send(request)
        if response.status_code >= 300 or event_name.endswith(".Converse"):
            response.raw = _BoundedRaw(response.raw)
        return response

    client.meta.events.register("before-send.bedrock-runtime", send_bounded)


def whole_body(response: Body, tokens: int) -> Generator[Body]:
    """Yield the one body of an unstreamed response; InvokeModel's is JSON that is still to be read.

    Raises:
        CallError: the body is longer than an answer of so many tokens can be.
    """
    if "body" not in response:
        yield response
        return
    max_bytes = max_answer_bytes(tokens)
    with contextlib.closing(response["body"]) as body:
        raw = body.read(max_bytes + 1)
        if len(raw) > max_bytes:
            raise too_large(f"more than {max_bytes:,} bytes")
        yield json.loads(raw)


def check_size(answer: ResponseAccumulator, chunks: int, tokens: int) -> None:
    """Raise CallError where a stream has more chunks, or a longer text, than was asked for."""
    if chunks > max_answer_chunks(tokens):
        raise too_large(f"more than {max_answer_chunks(tokens):,} chunks")
    if answer.characters > max_answer_bytes(tokens):
        raise too_large(f"more than {max_answer_bytes(tokens):,} characters")


def stream_bodies(response: Body) -> Generator[Body]:
    """Yield the bodies of a streamed response: Converse's events, or the JSON in InvokeModel's chunks."""
    with contextlib.closing(response["stream"] if "stream" in response else response["body"]) as events:
        for event in events:
            yield json.loads(event["chunk"]["bytes"]) if "chunk" in event else event


def usage_of(response: ResponseAccumulator) -> Usage | None:
    """Return the usage with all input tokens, as other services count: AWS's count excludes those of its cache.

    None where the service counts nothing, or what cannot be read: the text is there and paid for.
    """
    cached, written = response.cached_input_tokens or 0, response.cache_written_tokens or 0
    if response.input_tokens is None:
        return None
    try:
        return readable_usage(
            input_tokens=response.input_tokens + cached + written,
            output_tokens=response.output_tokens,
            cached_input_tokens=cached,
            cache_written_tokens=written,
        )
    except ValidationError:
        return None
