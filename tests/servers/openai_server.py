"""A local server that has as much of OpenAI's API as the provider uses, with a known pace and chosen faults.

Answers are the prompt's words, one a chunk. The server keeps every request, its arrival, and how many were open at once.
asyncio streams and nothing else: the server must cost little beside the client that it measures.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

KEY = "planted-key-3f9c"
"""The key that tests put into the environment."""
MODELS = {
    "object": "list",
    "data": [
        {"id": "small", "object": "model", "created": 1767225600, "owned_by": "x"},
        {"id": "old", "object": "model", "created": 0, "owned_by": "x", "shutdown_date": "2027-01-14"},
    ],
}
Fault = Callable[[int, dict[str, Any]], "dict[str, Any] | None"]
"""Given a request's number and body, what to do instead of answering."""


@dataclass
class Asked:
    """One request as it arrived.

    `raw` is the body's bytes; `first_token_s` is from its arrival to its first token leaving; `sent_at` are the choice's index and the time, by
    `time.perf_counter`, of every token.
    """

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    arrived: float
    first_token_s: float | None = None
    sent_at: list[tuple[int, float]] = field(default_factory=list)
    status: int = 200
    quirks: dict[str, Any] = field(default_factory=dict)
    raw: bytes = b""


@dataclass
class OpenAIServer:
    """`with OpenAIServer(...) as server:` serves at `server.url`.

    Args:
        first_token_s: seconds from a request's arrival to its first token.
        token_s: seconds between tokens.
        fault: given a request's number and body, what to do instead of answering: {"status", "headers", "body"},
            {"cut": tokens}, {"raw": bytes}, {"hang": seconds} or {"wire": bytes, "every_s": seconds}, which are all
            that is sent, a byte each `every_s`, before the connection is closed; None answers. {"reasoning": field},
            {"cached": tokens}, {"reasoning_tokens": tokens} and {"answers": count} answer too: after a piece of
            reasoning in that field of a delta, with so much of the input from a cache, with so many output tokens
            counted as reasoning, or with so many answers, however many were asked for.
        tls: serve https with this context.
        hold_until_open: answer nothing before this many requests were open at once.
    """

    first_token_s: float = 0.0
    token_s: float = 0.0
    fault: Fault = lambda number, body: None
    tls: ssl.SSLContext | None = None
    hold_until_open: int = 0
    asked: list[Asked] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    def __enter__(self) -> "OpenAIServer":
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=self.tls, backlog=2048)
        scheme = "https" if self.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await self._read(reader):
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                try:
                    if not await self._answer(request, writer):
                        break
                finally:
                    self.open -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked | None:
        head = await reader.readuntil(b"\r\n\r\n")
        arrived = time.perf_counter()
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(path=first.split()[1], headers=headers, body=json.loads(body or b"{}"), arrived=arrived, raw=body)
        self.asked.append(asked)
        return asked

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        while self.most_open < self.hold_until_open:
            await asyncio.sleep(0.01)
        fault = asked.quirks = self.fault(len(self.asked) - 1, asked.body) or {}
        if asked.path.partition("?")[0].endswith("/models") and not fault:
            fault = {"body": MODELS}
            asked.status, fault["status"] = 200, 200
        if "hang" in fault:
            await asyncio.sleep(fault["hang"])
        if "wire" in fault:
            return await _write_slowly(writer, fault["wire"], fault.get("every_s", 0.0))
        if "status" in fault or "raw" in fault:
            asked.status = fault.get("status", 200)
            payload = fault["raw"] if "raw" in fault else json.dumps(fault.get("body", {})).encode()
            _head(writer, asked.status, {"content-length": str(len(payload)), **fault.get("headers", {})})
            writer.write(payload)
            await writer.drain()
            return True
        if not asked.body.get("stream"):
            await asyncio.sleep(self.first_token_s)
            payload = json.dumps(whole_answer(asked)).encode()
            _head(writer, 200, {"content-length": str(len(payload))})
            writer.write(payload)
            await writer.drain()
            return True
        return await self._stream(asked, writer, fault.get("cut"))

    async def _stream(self, asked: Asked, writer: asyncio.StreamWriter, cut: int | None) -> bool:
        _head(writer, 200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        sent = 0
        async for event in self._paced(asked):
            if cut is not None and sent >= cut:
                return False
            sent += 1
            data = b"data: " + json.dumps(event).encode() + b"\n\n"
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()
        return True

    async def _paced(self, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        due = asked.arrived + self.first_token_s
        for event, is_token in stream_events(asked):
            if is_token:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due += self.token_s
                now = time.perf_counter()
                asked.sent_at.append((event["choices"][0]["index"] if "choices" in event else 0, now))
                if asked.first_token_s is None:
                    asked.first_token_s = now - asked.arrived
            yield event


def sse(*events: dict[str, Any]) -> dict[str, Any]:
    """Return the fault that answers with these server-sent events."""
    raw = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return {"raw": raw, "headers": {"content-type": "text/event-stream"}}


async def _write_slowly(writer: asyncio.StreamWriter, data: bytes, every_s: float) -> bool:
    if not every_s:
        writer.write(data)
        await writer.drain()
        return False
    for place in range(len(data)):
        writer.write(data[place : place + 1])
        await writer.drain()
        await asyncio.sleep(every_s)
    return False


def _head(writer: asyncio.StreamWriter, status: int, headers: dict[str, str]) -> None:
    lines = [
        f"HTTP/1.1 {status} X",
        *(f"{name}: {value}" for name, value in ({"content-type": "application/json"} | headers).items()),
    ]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())


def words(text: str, limit: int) -> tuple[list[str], str]:
    pieces = text.split()
    kept = [word if index == 0 else f" {word}" for index, word in enumerate(pieces[:limit])]
    return kept, "length" if len(pieces) > limit else "stop"


def _texts(asked: Asked) -> list[str]:
    body = asked.body
    if "prompt" in body:
        return [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
    return [(body.get("messages") or body["input"])[-1]["content"]]


def _limit(body: dict[str, Any]) -> int:
    return next(
        int(body[name]) for name in ("max_completion_tokens", "max_output_tokens", "max_tokens") if name in body
    )


def _answers(asked: Asked) -> list[tuple[list[str], str]]:
    answers = [words(text, _limit(asked.body)) for text in _texts(asked) for _ in range(asked.body.get("n", 1))]
    return answers[: asked.quirks.get("answers")]


def _usage(asked: Asked) -> dict[str, Any]:
    given, made = sum(len(text.split()) for text in _texts(asked)), sum(len(pieces) for pieces, _ in _answers(asked))
    cache = {"cached_tokens": asked.quirks["cached"]} if "cached" in asked.quirks else None
    names = ("input", "output") if asked.path.endswith("/responses") else ("prompt", "completion")
    named: dict[str, Any] = {f"{names[0]}_tokens": given, f"{names[0]}_tokens_details": cache}
    thought = asked.quirks.get("reasoning_tokens")
    named[f"{names[1]}_tokens"] = made + (thought or 0)
    named[f"{names[1]}_tokens_details"] = None if thought is None else {"reasoning_tokens": thought}
    total = given + made + (thought or 0)
    return {name: value for name, value in named.items() if value is not None} | {"total_tokens": total}


def _base(asked: Asked) -> dict[str, Any]:
    return {"id": "x", "created": 0, "model": f"{asked.body.get('model')}-2026", "system_fingerprint": "fp_local"}


def whole_answer(asked: Asked) -> dict[str, Any]:
    if asked.path.endswith("/responses"):
        return _response(asked)
    chat = "messages" in asked.body
    choices = [
        {
            "index": index,
            "finish_reason": end,
            **({"message": {"role": "assistant", "content": "".join(pieces)}} if chat else {"text": "".join(pieces)}),
        }
        for index, (pieces, end) in enumerate(_answers(asked))
    ]
    return {
        **_base(asked),
        "object": "chat.completion" if chat else "text_completion",
        "choices": choices,
        "usage": _usage(asked),
    }


def _response(asked: Asked) -> dict[str, Any]:
    ((pieces, end),) = _answers(asked)
    output = [
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "".join(pieces), "annotations": []}],
        }
    ]
    cut = (
        {"incomplete_details": {"reason": "max_output_tokens"}, "status": "incomplete"}
        if end == "length"
        else {"incomplete_details": None, "status": "completed"}
    )
    return {
        **_base(asked),
        "object": "response",
        "created_at": 0,
        "output": output,
        "usage": _usage(asked),
        "error": None,
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        **cut,
    }


def stream_events(asked: Asked) -> list[tuple[dict[str, Any], bool]]:
    answers = _answers(asked)
    if asked.path.endswith("/responses"):
        return _response_events(asked, answers[0][0])
    chat = "messages" in asked.body
    base = {**_base(asked), "object": "chat.completion.chunk" if chat else "text_completion"}
    steps = max(1, *(len(pieces) for pieces, _ in answers))
    events: list[tuple[dict[str, Any], bool]] = []
    if "reasoning" in asked.quirks:
        thought = {"index": 0, "finish_reason": None, "delta": {asked.quirks["reasoning"]: "hm"}}
        events.append(({**base, "choices": [thought]}, True))
    for step in range(steps):
        for index, (pieces, end) in enumerate(answers):
            if step < len(pieces):
                part = {"delta": {"content": pieces[step]}} if chat else {"text": pieces[step]}
                events.append(({**base, "choices": [{"index": index, "finish_reason": None, **part}]}, True))
            if step == max(0, len(pieces) - 1):
                end_part: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
                events.append(({**base, "choices": [{"index": index, "finish_reason": end, **end_part}]}, False))
    if asked.body.get("stream_options", {}).get("include_usage"):
        events.append(({**base, "choices": [], "usage": _usage(asked)}, False))
    return events


def _response_events(asked: Asked, pieces: list[str]) -> list[tuple[dict[str, Any], bool]]:
    deltas: list[tuple[dict[str, Any], bool]] = [
        (
            {
                "type": "response.output_text.delta",
                "delta": piece,
                "content_index": 0,
                "item_id": "m",
                "output_index": 0,
                "sequence_number": n,
                "logprobs": [],
            },
            True,
        )
        for n, piece in enumerate(pieces)
    ]
    final = _response(asked)
    if "reasoning" in asked.quirks:
        deltas.insert(0, ({**deltas[0][0], "type": "response.reasoning_text.delta", "delta": "hm"}, True))
    return [*deltas, ({"type": f"response.{final['status']}", "response": final, "sequence_number": 99}, False)]
