"""Answers that no service should send, as bytes on the wire, chosen by a seeded generator."""

import json
import random
import zlib
from collections.abc import Callable, Mapping
from typing import Any

STATUSES = (
    201,
    204,
    206,
    304,
    307,
    308,
    400,
    401,
    402,
    403,
    404,
    408,
    409,
    418,
    422,
    429,
    451,
    500,
    502,
    503,
    520,
    599,
)
HEADERS: Mapping[str, tuple[str, ...]] = {
    "retry-after": ("0", "-1", "0.01", "1e400", "nan", "9" * 5000, "soon", "Fri, 31 Dec 99999 23:59:59 GMT",
                    "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 +9999"),
    "retry-after-ms": ("0", "-5", "1e308", "1", "x"),
    "x-should-retry": ("true", "false", "perhaps"),
    "content-encoding": ("gzip", "deflate", "br", "zstd", "identity", "gzip, gzip", "x" * 300),
    "content-type": ("application/json", "text/event-stream", "text/html", "application/json; charset=klingon",
                     "text/plain; charset=hex", "application/vnd.amazon.eventstream", "", "\xff\xfe"),
    "location": ("http://127.0.0.1:9/v1", "http://localhost:9/", "https://[", "ftp://127.0.0.1/x"),
    "x-amzn-errortype": ("ThrottlingException", "AccessDeniedException", "Nobody:knows", "ValidationException"),
    "x-amzn-bedrock-input-token-count": ("5", "-1", "many", "9" * 5000),
}  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**30, 10**400, "", "\ud800", "\x00", [], [[]], {}, {"error": "no"}, [None], "x" * 5000,
)  # fmt: skip


def odd_wire(chooser: random.Random, good: Any) -> bytes:
    """Return an odd response.

    Args:
        chooser: makes every choice.
        good: a well-formed answer's JSON, the list of a stream's events, or the bytes of Bedrock's event stream; a part
            of it is damaged.
    """
    status = 200 if chooser.random() < 0.6 else chooser.choice(STATUSES)
    names = chooser.sample(sorted(HEADERS), chooser.randrange(4))
    headers = {"content-type": _KINDS.get(type(good), "application/json")} | {
        name: chooser.choice(HEADERS[name]) for name in names
    }
    body = chooser.choice(BODIES)(chooser, good)
    if headers.get("content-encoding") == "gzip" and chooser.random() < 0.7:
        compressor = zlib.compressobj(wbits=31)
        body = compressor.compress(body) + compressor.flush()
    head = f"HTTP/1.1 {status} Odd\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode("latin-1") + chooser.choice(FRAMES)(body)


_KINDS: Mapping[type, str] = {list: "text/event-stream", bytes: "application/vnd.amazon.eventstream"}


def _damaged(chooser: random.Random, value: Any) -> Any:
    """Return the value with one part of it replaced or left out."""
    if isinstance(value, dict) and value and chooser.random() < 0.85:
        key = chooser.choice(sorted(value))
        if chooser.random() < 0.2:
            return {name: part for name, part in value.items() if name != key}
        return {**value, key: _damaged(chooser, value[key])}
    if isinstance(value, list) and value and chooser.random() < 0.85:
        place = chooser.randrange(len(value))
        return [*value[:place], _damaged(chooser, value[place]), *value[place + 1 :]]
    return chooser.choice(ODD_VALUES)


def _encoded(good: Any) -> bytes:
    if isinstance(good, bytes):
        return good
    if isinstance(good, list):
        return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in good) + b"data: [DONE]\n\n"
    return json.dumps(good).encode()


def _noise(chooser: random.Random, good: Any) -> bytes:
    raw = bytearray(_encoded(good))
    for _ in range(chooser.randrange(1, 9)):
        raw[chooser.randrange(len(raw))] = chooser.randrange(256)
    return bytes(raw)


def _chunked(body: bytes) -> bytes:
    pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"transfer-encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


BODIES: tuple[Callable[[random.Random, Any], bytes], ...] = (
    lambda chooser, good: _encoded(_damaged(chooser, good)),
    lambda chooser, good: _encoded(_damaged(chooser, _damaged(chooser, good))),
    _noise,
    lambda chooser, good: _encoded(good)[: chooser.randrange(1, len(_encoded(good)))],
    lambda _, good: _encoded(good) * 50,
    lambda *_: b"",
    lambda *_: b"<html>please log in</html>",
    lambda *_: b"[" * 50_000,
    lambda *_: b'{"usage": ' + b"9" * 5000 + b"}",
    lambda *_: b" " * (3 << 20),
    lambda *_: b"data: {}\n\n" * 20_000,
    lambda *_: b'{"error": {"message": "an error with any status", "code": "odd"}}',
    lambda *_: b'data: {"error": {"message": "in the stream", "type": "overloaded_error"}}\n\n',
    lambda *_: bytes(range(256)) * 40,
)
FRAMES: tuple[Callable[[bytes], bytes], ...] = (
    lambda body: b"content-length: %d\r\n\r\n" % len(body) + body,
    lambda body: b"content-length: %d\r\n\r\n" % len(body) + body,
    lambda body: b"content-length: %d\r\n\r\n" % (len(body) + 10) + body,
    lambda body: b"content-length: %d\r\n\r\n" % (len(body) // 2) + body,
    lambda body: b"content-length: many\r\n\r\n" + body,
    lambda body: b"\r\n" + body,
    _chunked,
    _chunked,
    lambda body: b"transfer-encoding: chunked\r\n\r\nzz\r\n" + body,
    lambda body: b"no colon here\r\n\r\n" + body,
)
