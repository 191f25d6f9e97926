"""Servers that count nothing, send too much, send elsewhere, or repeat the key: texts are kept, and nothing else is."""

import json
import logging
import re
import time
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from runner import app
from runner.errors import AccessError, BudgetError
from runner.providers.factory import build
from runner.record.folder import RunFolder
from runner.types import Completion, Failure
from tests.conftest import Compose
from tests.factories import DEAR, generate, numbered, prompts, summary_of
from tests.servers.openai_server import OpenAIServer, sse

EVENTS = {"content-type": "text/event-stream"}


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """Return a whole answer of the chat endpoint."""
    message = {"role": "assistant", "content": text}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}], **fields}  # fmt: skip


def chunk(text: str, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a chunk of a streamed answer of the chat endpoint."""
    choices = [{"index": 0, "finish_reason": finish_reason, "delta": {"content": text}}]
    return {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices, **fields}


def response(text: str, **fields: Any) -> dict[str, Any]:
    """Return a whole answer of the responses endpoint."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}
    return {"id": "x", "object": "response", "created_at": 0, "model": "m", "output": [message], "error": None,
            "parallel_tool_calls": False, "tool_choice": "auto", "tools": [], "incomplete_details": None,
            "status": "completed", **fields}  # fmt: skip


TEXT = {"choices": [{"index": 0, "finish_reason": "stop", "text": "yes"}], "id": "x", "object": "text_completion",
        "created": 0, "model": "m"}  # fmt: skip
UNCOUNTED: list[tuple[str, bool, dict[str, Any]]] = [
    ("chat", True, sse(chunk("yes"), chunk("", "stop"))),
    ("chat", True, sse(chunk("yes"), chunk("", "stop", usage={}))),
    ("chat", True, sse(chunk("yes"), chunk("", "stop", usage={"prompt_tokens": -1, "completion_tokens": "two"}))),
    ("chat", False, {"body": chat("yes"), "status": 200}),
    ("chat", False, {"body": chat("yes", usage={"prompt_tokens": 3}), "status": 200}),
    ("completions", True, sse(TEXT)),
    ("completions", False, {"body": TEXT, "status": 200}),
    ("responses", False, {"body": response("yes"), "status": 200}),
    ("responses", True, sse({"type": "response.completed", "response": response("yes"), "sequence_number": 1})),
]


@pytest.mark.parametrize(("endpoint", "stream", "fault"), UNCOUNTED, ids=str)
def test_an_answer_without_usage_is_kept_without_tokens_and_not_asked_for_again(
    endpoint: str, stream: bool, fault: dict[str, Any], hosted: Compose, caplog: pytest.LogCaptureFixture
):
    with OpenAIServer(fault=lambda *_: fault) as server:
        outcomes = generate(
            hosted(server, f"provider.endpoint={endpoint}", f"provider.stream={stream}"), prompts("a", "b")
        )
        assert len(server.asked) == 2
    for outcome in outcomes:
        assert isinstance(outcome, Completion), outcome
        assert (outcome.text, outcome.finish_reason, outcome.usage) == ("yes", "stop", None)
    assert caplog.text.count("have no usage") == 1, "said once"


COUNTS = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
WHOLE: list[tuple[str, dict[str, Any]]] = [
    ("chat", chat("yes", usage=COUNTS)),
    ("completions", {**TEXT, "usage": COUNTS}),
    ("responses", response("yes", usage={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2})),
]


@pytest.mark.parametrize(("endpoint", "body"), WHOLE, ids=[endpoint for endpoint, _ in WHOLE])
def test_a_server_that_ignores_stream_is_read_and_asked_once(endpoint: str, body: dict[str, Any], hosted: Compose):
    fault = {"body": body, "status": 200, "headers": {"content-type": "application/json; charset=utf-8"}}
    with OpenAIServer(fault=lambda *_: fault) as server:
        (outcome,) = generate(hosted(server, f"provider.endpoint={endpoint}"), prompts("a"))
        assert len(server.asked) == 1
    assert isinstance(outcome, Completion), outcome
    assert outcome.usage
    assert (outcome.text, outcome.usage.output_tokens, outcome.timing.time_to_first_token_s) == ("yes", 1, None)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_never_says_why_it_ended_is_kept_once_its_usage_came(stream: bool, hosted: Compose):
    whole = {**chat("yes", usage=COUNTS), "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}}]}
    fault = sse(chunk("yes"), chunk("", usage=COUNTS)) if stream else {"body": whole, "status": 200}
    with OpenAIServer(fault=lambda *_: fault) as server:
        (outcome,) = generate(hosted(server, f"provider.stream={stream}"), prompts("a"))
        assert len(server.asked) == 1
    assert isinstance(outcome, Completion), outcome
    assert (outcome.text, outcome.finish_reason) == ("yes", "unknown")


def test_the_metrics_of_a_run_with_an_uncounted_answer_have_no_sum_of_tokens(hosted: Compose, tmp_path: Path):
    uncounted = sse(chunk("yes"), chunk("", "stop"))
    with OpenAIServer(fault=lambda number, _: uncounted if number == 1 else None) as server:
        config = hosted(server, DEAR, "generation.max_tokens=10", "batch.size=1")
        app.run(config, tmp_path)
    metrics = summary_of(tmp_path).metrics
    assert metrics["completed_prompts"] > 1
    assert not [name for name in metrics if "tokens" in name and "token_" not in name]
    # the uncounted answer: 10 output tokens, and at most so many of input; a tenth of a cent a token
    assert metrics["cost_at_most_usd"] >= metrics["cost_usd"] + 0.01
    lines = (tmp_path / "outcomes.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["output_tokens"] is None for line in lines) == 1
    assert sum(outcome.usage is None for outcome in RunFolder(tmp_path).outcomes.read()  # type: ignore[union-attr]
               ) == 1  # fmt: skip


def test_the_budget_counts_an_uncounted_answer_at_its_maximum(hosted: Compose):
    uncounted = sse(chunk("yes"), chunk("", "stop"))
    settings = (DEAR, "generation.max_tokens=10", "batch.size=1", "limits.max_cost_usd=0.08")
    with OpenAIServer(fault=lambda *_: uncounted) as server:
        with pytest.raises(BudgetError, match=r"\$0\.043000 are spent"):  # one byte and 32 of a template, 10 of output
            generate(hosted(server, *settings), prompts("a", "b"))
        assert len(server.asked) == 1


def test_more_cached_tokens_than_the_prompt_has_make_no_cost_negative(hosted: Compose, tmp_path: Path):
    with OpenAIServer(fault=lambda *_: {"cached": 1_000_000}) as server:
        app.run(hosted(server, DEAR), tmp_path)
    metrics = summary_of(tmp_path).metrics
    assert metrics["cost_usd"] > 0
    assert metrics["cached_input_tokens"] == metrics["input_tokens"]


ERRORS: list[tuple[str, Any, str]] = [
    ("chat", {"error": {"message": "the words of the server", "code": "odd"}}, "odd"),
    ("chat", {"error": "the words of the server"}, "StreamError"),
    ("completions", {"error": {"message": "the words of the server", "type": "odd_type"}}, "odd_type"),
    ("responses", {"error": {"message": "the words of the server", "code": "odd"}}, "odd"),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("endpoint", "body", "type_"), ERRORS, ids=str)
def test_an_error_with_status_200_keeps_the_servers_words_and_is_not_asked_again(
    endpoint: str, body: Any, type_: str, stream: bool, hosted: Compose
):
    with OpenAIServer(fault=lambda *_: {"status": 200, "body": body}) as server:
        config = hosted(server, f"provider.endpoint={endpoint}", f"provider.stream={stream}")
        (failed,) = generate(config, prompts("a"))
        assert len(server.asked) == 1
    assert isinstance(failed, Failure)
    assert (failed.error.type, "the words of the server" in failed.error.message) == (type_, True)


def test_a_throttling_error_with_status_200_is_sent_again(hosted: Compose):
    body = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
    with OpenAIServer(fault=lambda number, _: {"status": 200, "body": body} if number == 0 else None) as server:
        (outcome,) = generate(hosted(server), prompts("a"))
    assert (outcome.attempts, isinstance(outcome, Completion)) == (2, True)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_follows_no_redirect_to_another_server(status: int, stream: bool, hosted: Compose):
    with OpenAIServer() as other, OpenAIServer() as server:
        server.fault = lambda *_: {"status": status, "headers": {"location": f"{other.url}/v1/chat/completions"}}
        with pytest.raises(AccessError, match=r"redirects to http://127\.0\.0\.1, where no prompt is sent"):
            generate(hosted(server, f"provider.stream={stream}"), prompts("secret plans"))
        assert other.asked == []


def test_a_redirect_at_the_same_server_is_followed(hosted: Compose):
    with OpenAIServer() as server:
        there = {"status": 307, "headers": {"location": "/v1/chat/completions/"}}
        server.fault = lambda number, _: there if number == 0 else None
        (outcome,) = generate(hosted(server), prompts("a b"))
    assert isinstance(outcome, Completion), outcome


def compressed(megabytes: int, *, window_bits: int) -> bytes:
    compressor = zlib.compressobj(9, wbits=window_bits)
    return b"".join(compressor.compress(b" " * (1 << 20)) for _ in range(megabytes)) + compressor.flush()


BOMBS: dict[str, tuple[bytes, dict[str, str], str]] = {
    "gzip": (compressed(64, window_bits=31), {"content-encoding": "gzip"}, "AnswerTooLarge"),
    "deflate": (compressed(64, window_bits=15), {"content-encoding": "deflate"}, "AnswerTooLarge"),
    "plain": (b" " * (4 << 20), {}, "AnswerTooLarge"),
    "br": (b"\x0b\x02\x80hello\x03", {"content-encoding": "br"}, "UnreadableAnswer"),
    "twice": (b"x", {"content-encoding": "gzip, gzip"}, "UnreadableAnswer"),
}


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", BOMBS)
def test_an_answer_is_read_no_further_than_max_tokens_can_need(name: str, stream: bool, status: int, hosted: Compose):
    raw, headers, type_ = BOMBS[name]
    kind = EVENTS if stream and status == 200 else {"content-type": "application/json"}
    fault = {"status": status, "raw": raw, "headers": {**kind, **headers}}
    with OpenAIServer(fault=lambda *_: fault) as server:
        (failed,) = generate(hosted(server, f"provider.stream={stream}", "limits.max_attempts=1"), prompts("a"))
    assert isinstance(failed, Failure)
    assert failed.error.type == type_, failed.error


def test_a_compressed_answer_is_read(hosted: Compose):
    raw = sse(chunk("yes"), chunk("", "stop", usage=COUNTS))["raw"]
    compressor = zlib.compressobj(9, wbits=31)
    packed = compressor.compress(raw) + compressor.flush()
    fault = {"raw": packed, "headers": {**EVENTS, "content-encoding": "gzip"}}
    with OpenAIServer(fault=lambda *_: fault) as server:
        (outcome,) = generate(hosted(server), prompts("a"))
        assert server.asked[0].headers["accept-encoding"] == "identity"
    assert isinstance(outcome, Completion), outcome
    assert outcome.text == "yes"


def test_chunks_are_bounded_and_other_requests_go_on_meanwhile(hosted: Compose):
    flood = sse(*[chunk("")] * 20_000)
    with OpenAIServer(fault=lambda number, _: flood if number == 0 else None) as server:
        started = time.perf_counter()
        failed, *others = sorted(
            generate(hosted(server, "generation.max_tokens=64", "limits.max_attempts=1"), numbered(4)),
            key=lambda outcome: isinstance(outcome, Completion),
        )
    assert isinstance(failed, Failure)
    assert re.search(r"more than 2,048 chunks", failed.error.message)  # 1024 + 16 for each of 64 tokens
    assert all(isinstance(outcome, Completion) for outcome in others)
    assert time.perf_counter() - started < 20


KEYS = ("planted-key/3f+9c", "sk-proj-планы".encode().hex())


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_a_server_repeats_is_in_the_answers_text_at_most(
    key: str, hosted: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    encoded = quote(key, safe="")
    answer = chunk(f"your key is {key}", f"stop {key}", usage=COUNTS, system_fingerprint=f"fp {encoded}")
    with OpenAIServer(fault=lambda *_: sse({**answer, "model": f"m {key}"})) as server:
        config = hosted(server)
        monkeypatch.setenv("OPENAI_API_KEY", key)
        app.run(config, tmp_path)
    assert "the answer's text repeats the key" in caplog.text
    for line in (tmp_path / "outcomes.jsonl").read_text().splitlines():
        fields = json.loads(line)
        assert key in fields.pop("text")
        assert (fields["model"], fields["system_fingerprint"]) == ("m ***", "fp ***")
        assert not any(form in json.dumps(fields) for form in (key, encoded))
    others = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "outcomes.jsonl"]
    for path in others:
        assert key.encode() not in path.read_bytes(), path
        assert encoded.encode() not in path.read_bytes(), path
    assert key not in caplog.text


@pytest.mark.parametrize(
    ("address", "key_variable", "warnings"),
    [
        ("http://models.example.org/v1", "OPENAI_API_KEY", 1),
        ("http://models.example.org/v1", "null", 0),
        ("https://models.example.org/v1", "OPENAI_API_KEY", 0),
        ("http://127.0.0.1:1/v1", "OPENAI_API_KEY", 0),
        ("http://localhost:1/v1", "OPENAI_API_KEY", 0),
    ],
)
def test_a_key_over_plain_http_to_another_machine_is_said_once(
    address: str, key_variable: str, warnings: int, hosted: Compose, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING)
    with OpenAIServer() as server:
        config = hosted(server, f"provider.base_url={address}", f"provider.api_key_env={key_variable}")
    with build(config):
        pass
    assert caplog.text.count("over plain http") == warnings
