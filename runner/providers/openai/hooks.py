"""Hooks of the HTTP client: requests stay at their host, and responses stay within their bound while they are read.

Imported where a client is made, because of httpx2.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
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
    """Return the hooks of a client whose requests go to `address`."""
    return {"request": [partial(_keep_to_host, httpx2.URL(address))], "response": [_bound]}


async def _keep_to_host(own: httpx2.URL, request: httpx2.Request) -> None:
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


async def _bound(response: httpx2.Response) -> None:
    """Have the response decoded within `responses.bounded_answer`.

    Raises:
        CallError: the response has an encoding that no request asked for.
    """
    encoding = response.headers.pop("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", *_WINDOW_BITS):
        message = f"the answer has the content encoding {encoding[:40]!r}, which no request asked for"
        raise CallError("UnreadableAnswer", message, RETRY)
    response.stream = _BoundedStream(response.stream, _WINDOW_BITS.get(encoding), max_bytes_to_read.get())


class _BoundedStream(httpx2.AsyncByteStream):
    """A response's bytes, decoded.

    Args:
        stream: the bytes as they come.
        window_bits: how they are compressed, as in zlib; None where they are not.
        max_bytes: a bound of the decoded bytes.
    """

    def __init__(self, stream: Any, window_bits: int | None, max_bytes: int) -> None:
        self._stream, self._left, self._max_bytes = stream, max_bytes, max_bytes
        self._decoder = None if window_bits is None else zlib.decompressobj(window_bits)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for raw in self._stream:
            async for piece in self._decoded(raw):
                self._left -= len(piece)
                if self._left < 0:
                    raise too_large(f"more than {self._max_bytes:,} bytes")
                yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _decoded(self, raw: bytes) -> AsyncIterator[bytes]:
        if self._decoder is None:
            yield raw
            return
        while raw:
            try:
                yield self._decoder.decompress(raw, _PIECE)
            except zlib.error as error:
                message = f"the answer is not what its content-encoding says: {error}"
                raise CallError("UnreadableAnswer", message, RETRY) from error
            raw = self._decoder.unconsumed_tail
            await asyncio.sleep(0)
