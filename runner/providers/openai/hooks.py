"""Hooks of the HTTP client: requests stay at their host, and responses stay within their bound while they are read.

Imported where a client is made, because of httpx2.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import httpx2

from runner.providers.errors import RETRY, CallError, ErrorPolicy
from runner.providers.responses import max_bytes_to_read, too_large

_PIECE = 1 << 16
"""Bytes that are decoded at once; other requests have their turn between two pieces."""
_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_REDIRECTED = ErrorPolicy(fatal=True, may_concern_one_prompt=True, not_billed=True)


def event_hooks(address: str) -> dict[str, list[Callable[[Any], Awaitable[None]]]]:
    """Return the hooks of an asynchronous client whose requests go to `address`."""
    keep_to_host, bound = partial(_keep_to_host, httpx2.URL(address)), partial(_bound, _BoundedAsyncStream)
    return {"request": [_awaitable(keep_to_host)], "response": [_awaitable(bound)]}


def blocking_event_hooks(address: str) -> dict[str, list[Callable[[Any], None]]]:
    """Return the hooks of a blocking client whose requests go to `address`."""
    return {
        "request": [partial(_keep_to_host, httpx2.URL(address))],
        "response": [partial(_bound, _BoundedStream)],
    }


def _awaitable(hook: Callable[[Any], None]) -> Callable[[Any], Awaitable[None]]:
    async def awaitable_hook(message: Any) -> None:
        hook(message)

    return awaitable_hook


def _keep_to_host(own: httpx2.URL, request: httpx2.Request) -> None:
    """Refuse a redirect to another host, port or scheme, but from http to https: a prompt is not for others.

    Raises:
        CallError: the request goes elsewhere.
    """
    url = request.url
    is_upgrade = url.host == own.host and (own.scheme, url.scheme) == ("http", "https")
    if (url.scheme, url.netloc) != (own.scheme, own.netloc) and not is_upgrade:
        raise CallError(
            "Redirected",
            f"{own.host} redirects to {url.scheme}://{url.host}, where no prompt is sent unless it is the provider's "
            "address: set it, if that server is meant",
            _REDIRECTED,
        )


def _bound(stream_type: "type[_BoundedAsyncStream | _BoundedStream]", response: httpx2.Response) -> None:
    """Have the response decoded within `responses.max_bytes_to_read`.

    Raises:
        CallError: the response has an encoding that no request asked for.
    """
    encoding = response.headers.pop("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", *_WINDOW_BITS):
        message = f"the answer has the content encoding {encoding[:40]!r}, which no request asked for"
        raise CallError("UnreadableAnswer", message, RETRY)
    response.stream = stream_type(response.stream, _Decoder(_WINDOW_BITS.get(encoding), max_bytes_to_read.get()))


class _Decoder:
    """Decodes a response's bytes.

    Args:
        window_bits: how they are compressed, as in zlib; None where they are not.
        max_bytes: a bound of the decoded bytes.
    """

    def __init__(self, window_bits: int | None, max_bytes: int) -> None:
        self._left, self._max_bytes = max_bytes, max_bytes
        self._decompressor = None if window_bits is None else zlib.decompressobj(window_bits)

    @property
    def is_compressed(self) -> bool:
        return self._decompressor is not None

    def pieces(self, raw: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes in pieces.

        Raises:
            CallError: there are more than the bound, or they are not what the header says.
        """
        for piece in self._decoded(raw):
            self._left -= len(piece)
            if self._left < 0:
                raise too_large(f"more than {self._max_bytes:,} bytes")
            yield piece

    def _decoded(self, raw: bytes) -> Iterator[bytes]:
        if self._decompressor is None:
            yield raw
            return
        while raw:
            try:
                yield self._decompressor.decompress(raw, _PIECE)
            except zlib.error as error:
                message = f"the answer is not what its content-encoding says: {error}"
                raise CallError("UnreadableAnswer", message, RETRY) from error
            raw = self._decompressor.unconsumed_tail


class _BoundedAsyncStream(httpx2.AsyncByteStream):
    """The decoded bytes of an asynchronous client's response."""

    def __init__(self, stream: Any, decoder: _Decoder) -> None:
        self._stream, self._decoder = stream, decoder

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for raw in self._stream:
            for piece in self._decoder.pieces(raw):
                yield piece
                if self._decoder.is_compressed:
                    await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _BoundedStream(httpx2.SyncByteStream):
    """The decoded bytes of a blocking client's response."""

    def __init__(self, stream: Any, decoder: _Decoder) -> None:
        self._stream, self._decoder = stream, decoder

    def __iter__(self) -> Iterator[bytes]:
        for raw in self._stream:
            yield from self._decoder.pieces(raw)

    def close(self) -> None:
        self._stream.close()
