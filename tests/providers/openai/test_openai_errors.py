"""What errors of OpenAI's API mean: what is sent again, what fails alone, what stops the run."""

import itertools
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.errors import AccessError, BudgetError, ServiceError
from runner.types import Completion, Failure
from tests.conftest import Compose
from tests.factories import completions, generate, prompts
from tests.servers.openai_server import KEY, OpenAIServer, sse

RETRYABLE: list[dict[str, Any]] = [
    {"status": 500, "body": {"error": {"message": "oops"}}},
    {"status": 503, "raw": b"<html>busy</html>", "headers": {"content-type": "text/html"}},
    {"status": 429, "headers": {"retry-after-ms": "20"}},
    {"status": 408},
    {"raw": b"{ not json", "headers": {"content-type": "application/json"}},
    {"raw": b"<html>hello</html>", "headers": {"content-type": "text/html"}},
    {"raw": b"", "headers": {"content-type": "text/event-stream"}},
]


@pytest.mark.parametrize(
    ("fault", "stream"), [*itertools.product(RETRYABLE, (True, False)), ({"cut": 1}, True), ({"cut": 0}, True)], ids=str
)
def test_what_is_retryable_is_sent_again_and_the_latency_has_both_attempts(
    fault: dict[str, Any], stream: bool, hosted: Compose
):
    with OpenAIServer(fault=lambda number, _: fault if number == 0 else None) as server:
        (outcome,) = generate(hosted(server, f"provider.stream={stream}"), prompts("a b c"))
    assert isinstance(outcome, Completion), outcome
    assert (outcome.text, outcome.attempts) == ("a b c", 2)
    first, second = server.asked
    assert outcome.timing.elapsed_s >= second.arrived - first.arrived - 0.05


def test_no_attempt_left_is_a_failure_that_counts_them(hosted: Compose):
    with OpenAIServer(
        fault=lambda number, body: {"status": 500} if body["messages"][0]["content"] == "bad" else None
    ) as server:
        outcomes = generate(hosted(server, "limits.max_attempts=2"), prompts("good", "bad", "fine"))
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert (failed.prompt_id, failed.attempts, failed.error.retryable) == ("p1", 2, True)
    assert len(completions(outcomes)) == 2
    assert len(server.asked) == 4


def test_a_refused_prompt_is_a_failure_and_not_sent_again(hosted: Compose):
    with OpenAIServer(
        fault=lambda number, _: {"status": 400, "body": {"error": {"message": "too long"}}} if number == 0 else None
    ) as server:
        outcomes = generate(hosted(server, "batch.size=1"), prompts("a", "b"))
    assert isinstance(outcomes[0], Failure)
    assert (outcomes[0].error.message, outcomes[0].error.retryable) == ("400: too long", False)
    assert len(server.asked) == 2


def test_a_hanging_answer_ends_at_the_timeout(hosted: Compose):
    with OpenAIServer(fault=lambda number, _: {"hang": 30} if number == 0 else None) as server:
        (outcome,) = generate(hosted(server, "limits.timeout_s=0.3"), prompts("a"))
    assert isinstance(outcome, Completion)
    assert outcome.attempts == 2


FATAL = {
    401: ["401", "provider.api_key_env"],
    402: ["402", "the quota is used up"],
    404: ["404", "model.id='gpt-5.4-mini'"],
    403: ["403", "permissions"],
}


@pytest.mark.parametrize("status", FATAL)
def test_what_no_request_can_change_stops_the_run_at_once(status: int, hosted: Compose):
    with OpenAIServer(fault=lambda *_: {"status": status, "body": {"error": {"message": "no"}}}) as server:
        with pytest.raises(AccessError) as caught:
            generate(hosted(server), prompts(*map(str, range(50))))
        assert len(server.asked) <= 4
    for part in FATAL[status]:
        assert part in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_used_up_quota_stops_the_run_and_keeps_what_was_done(hosted: Compose, tmp_path: Path):
    def quota(number: int, _: dict[str, Any]) -> dict[str, Any] | None:
        return (
            {"status": 429, "body": {"error": {"message": "pay", "code": "insufficient_quota"}}}
            if number >= 5
            else None
        )

    with OpenAIServer(fault=quota) as server, pytest.raises(ServiceError, match="insufficient_quota"):
        app.run(hosted(server, "batch.size=1", "name=quota"), tmp_path)
    assert len(server.asked) == 6, "not retried"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["status"], summary["metrics"]["completed_prompts"]) == ("FAILED", 5)


def failed_response(code: str) -> dict[str, Any]:
    response: dict[str, Any] = {
        "id": "r",
        "object": "response",
        "status": "failed",
        "output": [],
        "usage": None,
        "model": "m",
    }
    error = {"code": code, "message": "sent in the stream"}
    return {"type": "response.failed", "response": {**response, "error": error}, "sequence_number": 1}


STREAMED = [
    # endpoint, what the stream has, whether it is sent again, whether it stops the run
    ("chat", {"error": {"message": "x", "code": "server_error"}}, True, False),
    ("chat", {"error": {"message": "x", "type": "overloaded_error"}}, True, False),
    ("chat", {"error": {"message": "x"}}, True, False),
    ("chat", {"error": {"message": "x", "code": 400, "type": "BadRequestError"}}, False, False),
    ("chat", {"error": {"message": "x", "code": 503}}, True, False),
    ("chat", {"error": {"message": "x", "type": "invalid_request_error"}}, False, False),
    ("chat", {"error": {"message": "x", "code": "insufficient_quota"}}, False, True),
    ("completions", {"error": {"message": "x", "type": "insufficient_quota"}}, False, True),
    ("responses", failed_response("server_error"), True, False),
    ("responses", failed_response("rate_limit_exceeded"), True, False),
    ("responses", failed_response("invalid_prompt"), False, False),
    ("responses", failed_response("bio_policy"), False, False),
    ("responses", {"type": "error", "code": "insufficient_quota", "message": "x", "sequence_number": 1}, False, True),
    ("responses", {"type": "error", "code": None, "message": "x", "sequence_number": 1}, True, False),
]


@pytest.mark.parametrize(("endpoint", "event", "again", "fatal"), STREAMED, ids=str)
def test_an_error_inside_a_stream_means_what_it_means_outside(
    endpoint: str, event: dict[str, Any], again: bool, fatal: bool, hosted: Compose
):
    with OpenAIServer(fault=lambda number, _: sse(event) if number == 0 else None) as server:
        config = hosted(server, f"provider.endpoint={endpoint}", "batch.size=1")
        if fatal:
            with pytest.raises(AccessError, match="insufficient_quota"):
                generate(config, prompts("a b"))
        else:
            (outcome,) = generate(config, prompts("a b"))
            assert isinstance(outcome, Completion) == again
        assert len(server.asked) == (2 if again else 1)


def test_an_error_inside_a_stream_counts_against_the_budget(hosted: Compose):
    price = "model.price={input_usd_per_million: 1000, output_usd_per_million: 1000}"
    with (
        OpenAIServer(fault=lambda *_: sse({"error": {"message": "x", "code": 400}})) as server,
        pytest.raises(BudgetError, match=r"\$0\.047000 are spent"),
    ):
        settings = (price, "generation.max_tokens=10", "batch.size=1", "limits.max_cost_usd=0.06")
        generate(hosted(server, *settings), prompts("a b c", "d e f"))


MESSAGES: list[tuple[Any, str]] = [
    ({"detail": "prompt: expected a string"}, "prompt: expected a string"),
    ({"detail": [{"loc": ["body", "n"], "msg": "no"}]}, '[{"loc": ["body", "n"], "msg": "no"}]'),
    ({"error": "inputs must have less than 4 tokens"}, "inputs must have less than 4 tokens"),
    ({"object": "error", "message": "no such thing"}, "no such thing"),
    (b"upstream says\nno", "upstream says no"),
    (b"word " * 1000, "word word"),
]


@pytest.mark.parametrize(("body", "message"), MESSAGES, ids=["detail", "details", "text", "message", "plain", "long"])
def test_a_servers_message_is_kept_whatever_its_shape(body: Any, message: str, hosted: Compose):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with OpenAIServer(fault=lambda *_: {"status": 422, "raw": raw}) as server:
        (failed,) = generate(hosted(server), prompts("a"))
    assert isinstance(failed, Failure)
    assert failed.error.message.startswith(f"422: {message}")
    assert len(failed.error.message) <= 510


def test_a_request_that_the_server_says_not_to_retry_is_not_sent_again(hosted: Compose):
    with OpenAIServer(fault=lambda *_: {"status": 503, "headers": {"x-should-retry": "false"}}) as server:
        (failed,) = generate(hosted(server), prompts("a"))
    assert isinstance(failed, Failure)
    assert (len(server.asked), failed.error.retryable) == (1, False)


def test_an_unreachable_host_is_one_message(hosted: Compose):
    with OpenAIServer() as server:
        config = hosted(server, "limits.max_attempts=2")
    with pytest.raises(AccessError, match=r"cannot reach 127\.0\.0\.1.*provider's address"):
        generate(config, prompts("hi"))


def test_a_certificate_that_nobody_signed_is_one_message(hosted: Compose, tmp_path: Path):
    trustme = pytest.importorskip("trustme")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with OpenAIServer(tls=context) as server, pytest.raises(AccessError, match=r"TLS.*certificate"):
        generate(hosted(server), prompts("hi"))
