"""A local server with Bedrock's runtime API, which validates requests against botocore's own service model.

Answers with the words of the last user turn. The keys of each family's InvokeModel body are written down here a second
time, independently of the provider.
"""

import base64
import binascii
import json
import re
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import botocore.session
from botocore.validate import ParamValidator

OPERATIONS = {
    "converse": "Converse",
    "converse-stream": "ConverseStream",
    "invoke": "InvokeModel",
    "invoke-with-response-stream": "InvokeModelWithResponseStream",
}
LLAMA3_TURN = r"<\|start_header_id\|>user<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>"
LLAMA4_TURN = r"<\|header_start\|>user<\|header_end\|>\n\n(.*?)<\|eot\|>"
LLAMA_KEYS = {"prompt", "max_gen_len", "temperature", "top_p"}
BODIES: Mapping[str, tuple[set[str], set[str]]] = {
    "anthropic": (
        {"anthropic_version", "max_tokens", "messages"},
        {"system", "temperature", "top_p", "top_k", "stop_sequences"},
    ),
    "nova": ({"messages"}, {"system", "inferenceConfig"}),
    "llama3": ({"prompt"}, LLAMA_KEYS),
    "llama4": ({"prompt"}, LLAMA_KEYS),
    "mistral": ({"prompt"}, {"max_tokens", "temperature", "top_p", "top_k", "stop"}),
    "titan": ({"inputText"}, {"textGenerationConfig"}),
}
NESTED = {
    "inferenceConfig": {"maxTokens", "temperature", "topP", "topK", "stopSequences"},
    "textGenerationConfig": {"maxTokenCount", "temperature", "topP", "stopSequences"},
}
"""By family: the keys that a body must have, and those that it may have. Then the objects within them."""


@dataclass(frozen=True)
class Refusal:
    """An HTTP error instead of an answer."""

    status: int
    code: str
    message: str
    retry_after: str | None = None


@dataclass(frozen=True)
class InBand:
    """An exception inside the stream, after its first words."""

    code: str
    message: str


@dataclass(frozen=True)
class Cut:
    """The stream ends after its first words: as if all were well, or with the connection."""

    clean: bool


@dataclass(frozen=True)
class Hang:
    """No answer until the test releases it."""

    release: threading.Event


@dataclass(frozen=True)
class StopReason:
    """An answer with this stop reason."""

    value: str


@dataclass(frozen=True)
class NoUsage:
    """An answer that counts nothing."""


@dataclass(frozen=True)
class Thinks:
    """Reasoning that streams for this long before the answer."""

    for_s: float


@dataclass(frozen=True)
class Cached:
    """An answer to a prompt of which so many tokens were read from the cache: AWS's inputTokens do not hold them."""

    read: int


@dataclass(frozen=True)
class Wire:
    """These bytes, and the end of the connection."""

    data: bytes


Fault = Refusal | InBand | Cut | Hang | StopReason | NoUsage | Thinks | Cached | Wire


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    operation: str
    model_id: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    arrived_s: float
    in_flight: int
    port: int


@dataclass(frozen=True)
class Reply:
    """What is answered, before it has a wire format."""

    words: list[str]
    input_tokens: int
    limit: int
    stop_reason: str | None
    counted: bool
    thinks_s: float = 0.0
    cached: int = 0

    @property
    def text(self) -> str:
        return " ".join(self.words[: self.limit])

    @property
    def output_tokens(self) -> int:
        return min(len(self.words), self.limit)

    @property
    def deltas(self) -> list[str]:
        return re.findall(r"\S+\s*", self.text)

    def finish(self, done: str, cut: str) -> str:
        return self.stop_reason or (cut if len(self.words) > self.limit else done)

    @property
    def metrics(self) -> dict[str, Any]:
        counts = {"inputTokenCount": self.input_tokens, "outputTokenCount": self.output_tokens}
        counts |= {"cacheReadInputTokenCount": self.cached} if self.cached else {}
        return {"amazon-bedrock-invocationMetrics": counts} if self.counted else {}

    @property
    def usage(self) -> dict[str, int]:
        total = self.input_tokens + self.output_tokens
        counts = {"inputTokens": self.input_tokens, "outputTokens": self.output_tokens, "totalTokens": total}
        counts |= {"cacheReadInputTokens": self.cached} if self.cached else {}
        return counts if self.counted else {}


RUNTIME = botocore.session.get_session().get_service_model("bedrock-runtime")


class BedrockServer(ThreadingHTTPServer):
    """`with BedrockServer() as server:` serves until the block ends.

    Attributes:
        faults: what the next requests get instead of an answer, one each.
        fault: given a request's body, what it gets instead of an answer, once `faults` is empty.
        refused_text: a request that contains this text gets an error.
        seen: the requests that arrived.
        barrier: answers wait for each other here.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: deque[Fault] = deque()
        self.fault: Callable[[str], Fault | None] = lambda _: None
        self.refused_text: str | None = None
        self.seen: list[Seen] = []
        self.barrier: threading.Barrier | None = None
        self.lock = threading.Lock()
        self.in_flight = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "BedrockServer":
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it would add 40 ms an answer
    server: BedrockServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        fault = self._note()
        try:
            self._reply(fault)
        finally:
            with self.server.lock:
                self.server.in_flight -= 1

    def _note(self) -> Fault | None:
        _, _, model_id, self.action = self.path.split("/", 3)
        self.raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.model_id, self.body = unquote(model_id), json.loads(self.raw)
        with self.server.lock:
            self.server.in_flight += 1
            self.server.seen.append(
                Seen(
                    OPERATIONS[self.action],
                    self.model_id,
                    self.body,
                    dict(self.headers.items()),
                    time.perf_counter(),
                    self.server.in_flight,
                    self.client_address[1],
                )
            )
            return self.server.faults.popleft() if self.server.faults else self.server.fault(self.raw.decode())

    def _reply(self, fault: Fault | None) -> None:
        if self.server.barrier is not None:
            self.server.barrier.wait(timeout=30)
        if isinstance(fault, Wire):
            self.wfile.write(fault.data)
            self.close_connection = True
            return
        if isinstance(fault, Hang):
            fault.release.wait(timeout=600)
        if self.server.refused_text is not None and self.server.refused_text in self.raw.decode():
            fault = Refusal(400, "ValidationException", "the prompt is refused")
        if invalid := self._invalid():
            fault = Refusal(400, "ValidationException", invalid)
        if isinstance(fault, Refusal):
            self._refuse(fault)
        elif self.action.endswith("stream"):
            self._stream(fault)
        else:
            self._whole(fault)

    def _invalid(self) -> str | None:
        """Return what is wrong with the request by botocore's service model, or by the keys of the family's body."""
        return invalid_request(OPERATIONS[self.action], self.model_id, self.body)

    def _refuse(self, fault: Refusal) -> None:
        extra = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
        self._send(fault.status, {"message": fault.message}, {"x-amzn-ErrorType": fault.code, **extra})

    def _whole(self, fault: Fault | None) -> None:
        reply = self._compose(fault)
        if self.action == "converse":
            self._send(200, converse_body(reply), {})
            return
        family = _family(self.model_id)
        headers = {
            "X-Amzn-Bedrock-Input-Token-Count": str(reply.input_tokens),
            "X-Amzn-Bedrock-Output-Token-Count": str(reply.output_tokens),
        }
        self._send(200, _invoke_body(family, reply), headers if reply.counted else {})

    def _send(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def _stream(self, fault: Fault | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.amazon.eventstream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        reply = self._compose(fault)
        converse = self.action == "converse-stream"
        frames = converse_frames(reply) if converse else invoke_frames(_family(self.model_id), reply)
        for number, frame in enumerate(frames):
            if number == 2 and isinstance(fault, InBand):
                self._chunk(exception_frame(fault))
                break
            if number == 2 and isinstance(fault, Cut):
                if fault.clean:
                    break
                self.wfile.write(b"%x\r\n" % len(frame) + frame[:5])
                self.close_connection = True
                return
            self._chunk(frame)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, frame: bytes) -> None:
        self.wfile.write(b"%x\r\n" % len(frame) + frame + b"\r\n")
        self.wfile.flush()

    def _compose(self, fault: Fault | None) -> Reply:
        family = _family(self.model_id) if self.action.startswith("invoke") else "converse"
        return compose(family, self.body, fault)


def invalid_request(operation: str, model_id: str, body: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a request by botocore's service model, or by the keys of the family's body."""
    invokes = operation.startswith("Invoke")
    sent = {"body": json.dumps(body)} if invokes else body
    report = ParamValidator().validate({"modelId": model_id, **sent}, RUNTIME.operation_model(operation).input_shape)
    if report.has_errors():
        return str(report.generate_report())
    if not invokes:
        return None
    needed, allowed = BODIES[_family(model_id)]
    inner = {key for name, value in body.items() if name in NESTED for key in value.keys() - NESTED[name]}
    odd = (needed - body.keys()) | (body.keys() - needed - allowed) | inner
    return f"Malformed input request: {sorted(odd)}" if odd else None


def compose(family: str, body: Mapping[str, Any], fault: Fault | None) -> Reply:
    """Return what answers a request of a family, or of "converse"."""
    text, whole, limit = _read(family, body)
    cached = fault.read if isinstance(fault, Cached) else 0
    return Reply(
        words=text.split(),
        input_tokens=len(whole.split()) - cached,
        limit=limit,
        stop_reason=fault.value if isinstance(fault, StopReason) else None,
        counted=not isinstance(fault, NoUsage),
        thinks_s=fault.for_s if isinstance(fault, Thinks) else 0.0,
        cached=cached,
    )


def whole_answer(operation: str, model_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an unstreamed answer to a request."""
    if operation == "Converse":
        return converse_body(compose("converse", body, None))
    return _invoke_body(_family(model_id), compose(_family(model_id), body, None))


def _family(model_id: str) -> str:
    known = {"claude": "anthropic", "titan": "titan", "nova": "nova", "llama3": "llama3", "llama4": "llama4"}
    return next((family for part, family in known.items() if part in model_id), "mistral")


def _read(family: str, body: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return the last user turn, the text of all messages, and the limit of new tokens."""
    if family in ("converse", "nova"):
        turns = [turn["content"][0]["text"] for turn in body["messages"]]
        system = [block["text"] for block in body.get("system", [])]
        return turns[-1], " ".join([*system, *turns]), body["inferenceConfig"]["maxTokens"]
    if family == "anthropic":
        turns = [turn["content"] for turn in body["messages"]]
        return turns[-1], " ".join([body.get("system", ""), *turns]), body["max_tokens"]
    pattern, text, limit = {
        "llama3": (LLAMA3_TURN, body.get("prompt"), body.get("max_gen_len")),
        "llama4": (LLAMA4_TURN, body.get("prompt"), body.get("max_gen_len")),
        "mistral": (r"\[INST\] (.*?) \[/INST\]", body.get("prompt"), body.get("max_tokens")),
        "titan": (r"User: (.*?)\n", body.get("inputText"), body.get("textGenerationConfig", {}).get("maxTokenCount")),
    }[family]
    turns = re.findall(pattern, str(text), re.DOTALL)
    return turns[-1], " ".join(turns), int(limit or 0)


def converse_body(reply: Reply) -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": reply.text}]}},
        "stopReason": reply.finish("end_turn", "max_tokens"),
        "usage": reply.usage,
        "metrics": {"latencyMs": 1},
    }


def _invoke_body(family: str, reply: Reply) -> dict[str, Any]:
    counted = reply.counted
    if family == "anthropic":
        usage = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
        return {
            "type": "message",
            "content": [{"type": "text", "text": reply.text}],
            "stop_reason": reply.finish("end_turn", "max_tokens"),
            "usage": usage if counted else {},
        }
    if family == "nova":
        return converse_body(reply)
    if family.startswith("llama"):
        counts = {"prompt_token_count": reply.input_tokens, "generation_token_count": reply.output_tokens}
        return {
            "generation": reply.text,
            "stop_reason": reply.finish("stop", "length"),
            **(counts if counted else {}),
        }
    if family == "mistral":
        return {"outputs": [{"text": reply.text, "stop_reason": reply.finish("stop", "length")}]}
    result = {"outputText": reply.text, "completionReason": reply.finish("FINISH", "LENGTH")}
    count = {"tokenCount": reply.output_tokens} if counted else {}
    return {**({"inputTextTokenCount": reply.input_tokens} if counted else {}), "results": [{**result, **count}]}


def converse_events(reply: Reply) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "messageStart", {"role": "assistant"}
    if reply.thinks_s:
        yield "contentBlockDelta", {"delta": {"reasoningContent": {"text": "well, "}}, "contentBlockIndex": 0}
        time.sleep(reply.thinks_s)
    for delta in reply.deltas:
        yield "contentBlockDelta", {"delta": {"text": delta}, "contentBlockIndex": 0}
    yield "contentBlockStop", {"contentBlockIndex": 0}
    yield "messageStop", {"stopReason": reply.finish("end_turn", "max_tokens")}
    yield "metadata", {"usage": reply.usage, "metrics": {"latencyMs": 1}}


def converse_frames(reply: Reply) -> Iterator[bytes]:
    for name, payload in converse_events(reply):
        yield event_frame(name, payload)


def invoke_frames(family: str, reply: Reply) -> Iterator[bytes]:
    for chunk in _invoke_chunks(family, reply):
        yield event_frame("chunk", {"bytes": base64.b64encode(json.dumps(chunk).encode()).decode()})


def _invoke_chunks(family: str, reply: Reply) -> Iterator[dict[str, Any]]:
    if family == "nova":
        yield from ({name: payload} for name, payload in converse_events(reply))
        yield reply.metrics
    elif family == "anthropic":
        yield {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}}
        if reply.thinks_s:
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}
            time.sleep(reply.thinks_s)
        for delta in reply.deltas:
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": delta}}
        yield {"type": "message_delta", "delta": {"stop_reason": reply.finish("end_turn", "max_tokens")}}
        yield {"type": "message_stop", **reply.metrics}
    else:
        yield from _text_chunks(family, reply)


def _text_chunks(family: str, reply: Reply) -> Iterator[dict[str, Any]]:
    text, reason, done, cut = {
        "mistral": ("text", "stop_reason", "stop", "length"),
        "titan": ("outputText", "completionReason", "FINISH", "LENGTH"),
    }.get(family, ("generation", "stop_reason", "stop", "length"))
    for delta in reply.deltas:
        part = {text: delta, reason: None}
        yield {"outputs": [part]} if family == "mistral" else part
    last = {text: "", reason: reply.finish(done, cut)}
    yield {**({"outputs": [last]} if family == "mistral" else last), **reply.metrics}


def event_frame(name: str, payload: Mapping[str, Any]) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(payload).encode())


def exception_frame(fault: InBand) -> bytes:
    headers = {":exception-type": fault.code, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps({"message": fault.message}).encode())


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Encode application/vnd.amazon.eventstream: lengths, their checksum, headers, payload, the checksum of all."""
    encoded = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + encoded + payload
    return message + struct.pack(">I", binascii.crc32(message))
