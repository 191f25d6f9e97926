"""Faults of a service, on whole runs: what may pass is tried again, what stays is one prompt's failure and no more."""

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.errors import TooManyFailuresError
from runner.record.folder import OUTCOMES, RunFolder
from runner.record.writer import OutcomeWriter
from runner.types import Completion, Failure, Outcome
from tests.conftest import Compose, Runner
from tests.servers.openai_server import OpenAIServer

EVENTS, PAGE = {"content-type": "text/event-stream"}, {"content-type": "text/html"}
BEGUN = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"id": '
Faults = dict[str, tuple[dict[str, Any], str]]
"""By name: what the server does, and what the failure says."""

FAULTS: Faults = {
    "dropped": ({"wire": b""}, "ConnectionLost: 127.0.0.1 closed the connection"),
    "cut-in-the-head": ({"wire": BEGUN[:30]}, "ConnectionLost: 127.0.0.1 closed the connection"),
    "cut-in-the-body": ({"wire": BEGUN}, "ConnectionLost: 127.0.0.1 closed the connection"),
    "not-http": ({"wire": b"\x16\x03\x01 what is this\r\n\r\n"}, "the answer is not HTTP"),
    "error-500": ({"status": 500, "body": {"error": {"message": "out of luck"}}}, "500: out of luck"),
    "error-page": ({"status": 502, "raw": b"<html>bad gateway</html>", "headers": PAGE}, "502"),
    "empty-error": ({"status": 503, "raw": b""}, "503"),
}
WHOLE: Faults = FAULTS | {
    "half-json": ({"raw": b'{"id": "x", '}, "JSONDecodeError: the answer is not JSON"),
    "no-utf8": ({"raw": b'{"id": "\xff"}'}, "the answer is not JSON"),
    "other-json": ({"raw": b"[1, 2]"}, "MalformedAnswer: the answer is no object of the API"),
    "null": ({"raw": b"null"}, "MalformedAnswer: the answer is no object of the API"),
    "nothing-chosen": ({"raw": b'{"id": "x", "choices": []}'}, "StreamCut"),
    "html": ({"raw": b"<html>please log in</html>", "headers": PAGE}, "MalformedAnswer: the answer is no object of the API"),
    "empty": ({"raw": b""}, "JSONDecodeError: the answer is not JSON"),
}  # fmt: skip


def _odd(**parts: Any) -> dict[str, Any]:
    """Return what sends a whole answer of which some parts are not what the API promises."""
    choice = {"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1} | parts.pop("usage", {})
    answer = {"id": "x", "model": "m", "choices": [choice], "usage": usage} | parts
    return {"raw": b"data: " + json.dumps(answer).encode() + b"\n\ndata: [DONE]\n\n", "headers": EVENTS}


STREAMED: Faults = FAULTS | {
    "nested-too-deep": ({"raw": b"data: " + b"[" * 100_000 + b"\n\n", "headers": EVENTS}, "the answer is not JSON"),
    "error-code-that-is-a-list": ({"status": 500, "body": {"error": {"message": "m", "code": ["a"]}}}, "500: m"),
    "cut-before-the-first-token": ({"cut": 0}, "ConnectionLost: 127.0.0.1 closed the connection"),
    "cut-between-tokens": ({"cut": 2}, "ConnectionLost: 127.0.0.1 closed the connection"),
    "half-json": ({"raw": b'data: {"id": \n\n', "headers": EVENTS}, "JSONDecodeError: the answer is not JSON"),
    "no-utf8": ({"raw": b'data: {"id": "\xff"}\n\n', "headers": EVENTS}, "the answer is not JSON"),
    "other-json": ({"raw": b"data: [1, 2]\n\n", "headers": EVENTS}, "MalformedAnswer: the answer is no object of the API"),
    "an-error-among-the-events": ({"raw": b'data: {"error": {"message": "overloaded"}}\n\n', "headers": EVENTS}, "overloaded"),
    "html": ({"raw": b"<html>please log in</html>", "headers": PAGE}, "EmptyAnswer: no event in the answer, whose content type is 'text/html'"),
    "empty": ({"raw": b""}, "EmptyAnswer: no event in the answer"),
    "no-events": ({"raw": b"data: [DONE]\n\n", "headers": EVENTS}, "EmptyAnswer: no event in the answer"),
}  # fmt: skip
ODD_FIELDS: dict[str, tuple[dict[str, Any], bool]] = {
    "usage-of-nothing": (_odd(usage={"prompt_tokens": None}), False),
    "usage-below-zero": (_odd(usage={"prompt_tokens": -3}), False),
    "usage-beyond-counting": (_odd(usage={"completion_tokens": 10**400}), False),
    "usage-that-is-no-number": (_odd(usage={"completion_tokens": float("nan")}), False),
    "model-that-is-a-list": (_odd(model=["m"]), True),
    "fingerprint-that-is-a-list": (_odd(system_fingerprint=["x"]), True),
}
"""Answers that are there, beside a field that cannot be read; and whether their tokens are known."""
SLOW: Faults = {
    name: ({"wire": sent, "every_s": 0.05}, "Timeout: no answer within limits.timeout_s=1")
    for name, sent in {
        "dribbling-head": b"HTTP/1.1 200 OK\r\nx-slow: " + b"a" * 900,
        "dribbling-body": BEGUN + b" " * 800,
        "dribbling-events": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b": wait\n" * 99,
    }.items()
}


@pytest.fixture
def hosted_texts(config: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Compose a run of these texts, each its own id, against this server."""
    monkeypatch.setenv("OPENAI_API_KEY", "planted")

    def made(server: OpenAIServer, texts: list[str], *overrides: str) -> Any:
        (tmp_path / "p.csv").write_text("id,prompt\n" + "".join(f"{text},{text}\n" for text in texts))
        address, source = f"provider.base_url={server.url}/v1", f"prompts.path={tmp_path / 'p.csv'}"
        return config("provider=openai", address, "prompts=file", source, *overrides)

    return made


def outcomes_of(directory: Path) -> dict[str, Outcome]:
    outcomes = list(RunFolder(directory).outcomes.read())
    assert len({outcome.prompt_id for outcome in outcomes}) == len(outcomes)
    return {outcome.prompt_id: outcome for outcome in outcomes}


def error_of(outcome: Outcome) -> str:
    return f"{outcome.error.type}: {outcome.error.message}" if isinstance(outcome, Failure) else "(completed)"


@pytest.mark.parametrize(
    ("faults", "settings"),
    [
        pytest.param(WHOLE, ["provider.stream=false"], id="whole"),
        pytest.param(STREAMED, ["provider.stream=true"], id="streamed"),
        pytest.param(SLOW, ["provider.stream=true", "limits.timeout_s=1"], id="slow"),
    ],
)
def test_a_fault_that_passes_costs_an_attempt_and_one_that_stays_costs_its_own_prompt(
    faults: Faults, settings: list[str], hosted_texts: Any, tmp_path: Path
):
    """Two prompts a fault: one that meets it once, one that meets it always; and prompts that meet none."""
    met = Counter[str]()

    def fault(_: int, body: dict[str, Any]) -> dict[str, Any] | None:
        text = body["messages"][-1]["content"]
        met[text] += 1
        when, name = text.split()
        return faults[name][0] if when == "always" or (when == "once" and met[text] == 1) else None

    texts = [f"{when} {name}" for when in ("never", "once", "always") for name in faults]
    with OpenAIServer(fault=fault) as server:
        config = hosted_texts(server, texts, *settings, "batch.size=64", "limits.max_attempts=2")
        summary = app.run(config, tmp_path / "run")
    outcomes = outcomes_of(tmp_path / "run")
    assert met == {text: 1 if text.startswith("never") else 2 for text in texts}
    for name, (_, message) in faults.items():
        healthy, passing, lasting = (outcomes[f"{when} {name}"] for when in ("never", "once", "always"))
        assert isinstance(healthy, Completion), f"{name}: a neighbour failed: {error_of(healthy)}"
        assert isinstance(passing, Completion), f"{name}: {error_of(passing)}"
        assert (healthy.text, healthy.attempts) == (f"never {name}", 1)
        assert (passing.text, passing.attempts) == (f"once {name}", 2)
        assert isinstance(lasting, Failure), name
        assert (lasting.attempts, lasting.error.retryable) == (2, True), name
        assert message in error_of(lasting)
    assert (summary.status, summary.metrics["failed_prompts"]) == ("FINISHED", len(faults))
    assert summary.metrics["retries"] == 2 * len(faults)


def test_an_answer_beside_a_field_that_cannot_be_read_is_kept_and_asked_for_once(hosted_texts: Any, tmp_path: Path):
    with OpenAIServer(fault=lambda _, body: ODD_FIELDS[body["messages"][-1]["content"]][0]) as server:
        app.run(hosted_texts(server, list(ODD_FIELDS)), tmp_path / "run")
        assert len(server.asked) == len(ODD_FIELDS)
    for name, outcome in outcomes_of(tmp_path / "run").items():
        assert isinstance(outcome, Completion), f"{name}: {error_of(outcome)}"
        assert outcome.text, name
        assert (outcome.usage is not None) == ODD_FIELDS[name][1], name


@pytest.mark.parametrize("fault", [{"status": 400}, {"status": 500}, {"wire": b""}, {"raw": b"{"}], ids=str)
def test_a_poisonous_prompt_in_a_list_is_found_and_fails_alone(
    fault: dict[str, Any], hosted_texts: Any, tmp_path: Path
):
    texts = [f"text {number}" for number in range(64)]
    texts[37] = "poison"
    lists = ("provider.endpoint=completions", "batch.mode=static", "batch.size=32", "provider.stream=false")
    with OpenAIServer(fault=lambda _, body: fault if "poison" in body["prompt"] else None) as server:
        app.run(hosted_texts(server, texts, *lists, "limits.max_attempts=1"), tmp_path / "run")
    outcomes = outcomes_of(tmp_path / "run")
    assert [text for text in texts if isinstance(outcomes[text], Failure)] == ["poison"]
    assert all(outcome.text == text for text, outcome in outcomes.items() if isinstance(outcome, Completion))
    assert len(server.asked) == 2 + 2 * math.log2(32), "two lists, and two halves at each step down to the one"


@pytest.mark.parametrize(("limit", "failed"), [("3", 4), ("0.25", 6)])
def test_a_run_with_too_many_failures_stops_and_can_go_on(limit: str, failed: int, hosted_texts: Any, tmp_path: Path):
    texts = [f"text {number}" for number in range(40)]
    refusal = {"status": 400, "body": {"error": {"message": "not today"}}}
    with OpenAIServer(fault=lambda number, _: refusal if number >= 10 else None) as server:
        config = hosted_texts(server, texts, "batch.size=1", f"limits.max_failures={limit}")
        with pytest.raises(TooManyFailuresError, match=rf"limits\.max_failures={limit}.*not today") as caught:
            app.run(config, tmp_path / "run")
        assert caught.value.exit_code == 1
        assert len(server.asked) == 10 + failed, "nothing is sent once the last failure is counted"
        stopped = RunFolder(tmp_path / "run").read_summary()
        assert stopped is not None
        assert (stopped.status, stopped.metrics["completed_prompts"]) == ("FAILED", 10)
        assert sum(isinstance(outcome, Failure) for outcome in RunFolder(tmp_path / "run").outcomes.read()) >= failed
        server.fault = lambda *_: None
        before = len(server.asked)
        summary = app.resume(tmp_path / "run")
        assert len(server.asked) - before == 30, "what had its answer is not asked for again"
    assert (summary.status, summary.metrics["completed_prompts"], summary.metrics["failed_prompts"]) == (
        "FINISHED", 40, 0,
    )  # fmt: skip


def test_too_many_failures_are_exit_code_1_and_a_message_that_names_the_limit(run_command: Runner, tmp_path: Path):
    done = run_command(
        "provider=echo", "provider.fail_on=e", "batch.size=1", "limits.max_failures=5", "tracking=off", track=False
    )
    assert done.returncode == 1
    assert "limits.max_failures=5" in done.stderr
    assert "python -m runner.resume outputs/runs/" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_was_set_between_two_processes_leaves_the_metrics_meaningful(
    days: int, config: Compose, tmp_path: Path
):
    app.run(config("provider=echo", "provider.latency_s=0.01"), tmp_path)
    first = [outcome for _, outcome in zip(range(20), RunFolder(tmp_path).outcomes.read(), strict=False)]
    (tmp_path / OUTCOMES).unlink()
    with OutcomeWriter(RunFolder(tmp_path)) as writer:
        for outcome in first:
            moved = replace(outcome.timing, started_at=outcome.timing.started_at + timedelta(days=days))
            writer.append([replace(outcome, timing=moved)])
    metrics = app.resume(tmp_path).metrics
    assert metrics["completed_prompts"] == 64
    assert all(value >= 0 for value in metrics.values()), metrics
    assert 0 < metrics["duration_s"] < 3600, "the time between is not counted"
    assert metrics["overhead_s"] <= metrics["duration_s"]
    assert metrics["latency_p95_s"] < 3600
    assert {outcome.segment for outcome in RunFolder(tmp_path).outcomes.read()} == {0, 1}
