"""Limits of an account with provider=openai: pauses, rates, budget, and how many requests are in flight."""

import itertools
import json
import statistics
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.errors import BudgetError
from runner.types import Completion
from tests.conftest import Compose
from tests.factories import completions, generate, prompts, prompts_file
from tests.servers.openai_server import OpenAIServer


def test_a_throttled_half_completes_and_nothing_is_sent_during_the_pause(hosted: Compose):
    announced: list[float] = []

    def half(number: int, _: dict[str, Any]) -> dict[str, Any] | None:
        if number % 2:
            return None
        announced.append(time.perf_counter())
        return {"status": 429, "headers": {"Retry-After": "1"}, "body": {"error": {"message": "slow down"}}}

    with OpenAIServer(fault=half, first_token_s=0.02) as server:
        by_choice = completions(generate(hosted(server), prompts(*map(str, range(12)))))
    assert len(by_choice) == 12
    assert sum(done.attempts for done in by_choice.values()) == len(server.asked)
    assert max(done.attempts for done in by_choice.values()) > 1
    on_their_way_s = 0.1  # a request that left before the answer arrived cannot be called back
    for at in announced:
        assert not [asked for asked in server.asked if at + on_their_way_s < asked.arrived < at + 1.0]


@pytest.mark.parametrize("odd", ["nan", "inf", "-5", "soon"])
def test_a_retry_after_that_makes_no_sense_is_ignored(odd: str, hosted: Compose):
    with OpenAIServer(
        fault=lambda number, _: {"status": 429, "headers": {"Retry-After": odd}} if not number else None
    ) as server:
        (outcome,) = generate(hosted(server), prompts("a"))
    assert isinstance(outcome, Completion)
    assert outcome.timing.elapsed_s < 5


def test_a_retry_after_with_a_date_is_waited_for(hosted: Compose):
    def later(number: int, _: dict[str, Any]) -> dict[str, Any] | None:
        until = formatdate(time.time() + 3, usegmt=True)
        return None if number else {"status": 429, "headers": {"Retry-After": until}}

    with OpenAIServer(fault=later) as server:
        generate(hosted(server), prompts("a"))
    first, second = server.asked
    assert second.arrived - first.arrived > 1.5


def test_the_budget_stops_before_the_request_that_would_pass_it(hosted: Compose, tmp_path: Path):
    price = "model.price={input_usd_per_million: 1000, output_usd_per_million: 1000}"
    settings = (price, "generation.max_tokens=10", "batch.size=1", "limits.max_cost_usd=0.3", "name=budget")
    with OpenAIServer() as server, pytest.raises(BudgetError, match=r"limits\.max_cost_usd=0\.3"):
        app.run(hosted(server, *settings), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    metrics = summary["metrics"]
    assert 0 < metrics["completed_prompts"] < 64
    assert metrics["cost_usd"] == pytest.approx((metrics["input_tokens"] + metrics["output_tokens"]) / 1000)
    assert metrics["cost_usd"] <= 0.3
    assert len(server.asked) == metrics["completed_prompts"], "what was sent is what was kept"


_NO_USAGE = b'{"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}'


@pytest.mark.parametrize(
    "fault",
    [
        {"hang": 5},
        {"cut": 1},
        {"raw": b"data: " + _NO_USAGE + b"\n\ndata: [DONE]\n\n"},
        {"raw": b"data: {}\n\n"},
        {"raw": b"data: {,\n\n"},
    ],
    ids=["timeout", "cut", "no-usage", "no-choices", "no-json"],
)
def test_an_attempt_whose_answer_was_lost_counts_against_the_budget(fault: dict[str, Any], hosted: Compose):
    price = "model.price={input_usd_per_million: 1000, output_usd_per_million: 1000}"
    limits = ("limits.max_cost_usd=0.06", "limits.timeout_s=0.3")  # one request: $0.047 at most
    with (
        OpenAIServer(fault=lambda *_: fault) as server,
        pytest.raises(BudgetError, match=r"\$0\.047000 are spent"),
    ):
        generate(hosted(server, price, "generation.max_tokens=10", "batch.size=1", *limits), prompts("a b c", "d e f"))
    assert len(server.asked) == 1


def test_requests_per_minute_are_spread(hosted: Compose):
    with OpenAIServer() as server:
        generate(hosted(server, "limits.requests_per_minute=300"), prompts(*map(str, range(15))))
    arrived = [asked.arrived for asked in server.asked]
    assert arrived[-1] - arrived[0] > 1.5, "5 at once, then 5 a second"


def test_tokens_per_minute_are_spread(hosted: Compose):
    with OpenAIServer() as server:
        limits = ("limits.tokens_per_minute=6000", "generation.max_tokens=40")  # 100 a second, some 45 a request
        generate(hosted(server, *limits), prompts(*map(str, range(6))))
    arrived = [asked.arrived for asked in server.asked]
    assert arrived[-1] - arrived[0] > 1.0


def test_auto_finds_what_the_service_takes_and_reports_its_path(hosted: Compose, tmp_path: Path):
    server = OpenAIServer(first_token_s=0.05)
    server.fault = lambda *_: {"status": 429, "headers": {"retry-after-ms": "20"}} if server.open > 12 else None
    with server:
        result = app.run(hosted(server, "batch.size=auto", *prompts_file(tmp_path, 300)), tmp_path / "out")
    assert result.metrics["completed_prompts"] == 300
    path = [requests for _, requests in result.summary.series["batch/requests_in_flight"]]
    assert path[0] == 4
    assert 12 < max(path) <= 32, "it looked beyond, and came back"
    settled = path[len(path) // 2 :]
    assert 5 <= statistics.median(settled) <= 16
    assert any(later < earlier for earlier, later in itertools.pairwise(path)), "multiplicative decrease"
