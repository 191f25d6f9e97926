"""Limits, budget, concurrency and open files: in a run against a local server that records when requests arrive.

The arithmetic of limits is checked on a virtual clock (test_limited_provider.py); two checks here repeat it in real time.
"""

import asyncio
import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.config.schema import RunConfig
from runner.config.waits import Waits
from runner.dispatch.budget import Budget
from runner.dispatch.call import estimate_tokens
from runner.dispatch.gate import RequestGate
from runner.dispatch.limited_provider import LimitedProvider
from runner.dispatch.stop import StopRequest
from runner.errors import AccessError, BudgetError, Interrupted
from runner.providers.factory import build
from runner.record.folder import RunFolder
from runner.run.prepare import prepare_calls
from runner.types import Completion, Failure
from tests.conftest import Compose
from tests.factories import DEAR, generate, generate_until_stopped, numbered, prompts, prompts_file, usage_of
from tests.servers.openai_server import OpenAIServer


def gaps_s(server: OpenAIServer) -> list[float]:
    return [later.arrived - earlier.arrived for earlier, later in itertools.pairwise(server.asked)]


def test_small_requests_use_what_a_second_allows(hosted: Compose):
    assert estimate_tokens(numbered(1)[0]) + 46 == 50, "at 100 a second: two at once, and then one in 0.5 s"
    with OpenAIServer() as server:
        limits = ("limits.tokens_per_minute=6000", "generation.max_tokens=46", "batch.size=10")
        started = time.perf_counter()
        generate(hosted(server, *limits), numbered(4))
    assert len(server.asked) == 4
    for earlier, asked in enumerate(server.asked):
        assert asked.arrived - started >= (earlier - 1) * 0.5 - 0.1, "never more than the limit has allowed by then"


def test_a_pause_saves_up_no_room(hosted: Compose):
    def first(number: int, _: dict[str, Any]) -> dict[str, Any] | None:
        return {"status": 429, "headers": {"Retry-After": "2"}} if number == 0 else None

    with OpenAIServer(fault=first) as server:
        generate(hosted(server, "limits.requests_per_minute=60"), numbered(2))
    assert gaps_s(server)[0] > 1.5, "the pause"
    assert gaps_s(server)[1] > 0.4, "then one a second"


def test_a_service_that_asks_for_a_day_is_asked_once(hosted: Compose):
    with OpenAIServer(fault=lambda *_: {"status": 503, "headers": {"Retry-After": "86400"}}) as server:
        with pytest.raises(AccessError, match="asks to wait 86400 s"):
            generate(hosted(server, "batch.size=1"), numbered(3))
        assert len(server.asked) == 1


def test_the_budget_counts_what_was_spent_before_a_resume(hosted: Compose, tmp_path: Path):
    texts = prompts_file(tmp_path, 100)  # $0.006 each, and $0.057 at most
    settings = (DEAR, "generation.max_tokens=10", "batch.size=1", "limits.max_cost_usd=0.2", "name=budget")
    with OpenAIServer() as server:
        with pytest.raises(BudgetError):
            app.run(hosted(server, *texts, *settings), tmp_path / "run")
        sent = len(server.asked)
        for _ in range(2):
            with pytest.raises(BudgetError, match=r"\$0\.1\d* are spent"):
                app.resume(tmp_path / "run")
        assert len(server.asked) == sent, "there is no more room than there was"
    usages = [
        usage_of(outcome)
        for outcome in RunFolder(tmp_path / "run").outcomes.read_all()
        if isinstance(outcome, Completion)
    ]
    assert 0.14 < sum(usage.input_tokens + usage.output_tokens for usage in usages) / 1000 <= 0.2


def test_the_budget_counts_answers_that_were_lost_before_a_resume(hosted: Compose, tmp_path: Path):
    texts = prompts_file(tmp_path, 100)  # $0.006 each, and $0.057 at most
    settings = (DEAR, "generation.max_tokens=10", "batch.size=1", "limits.max_cost_usd=0.1", "limits.max_attempts=1")
    with OpenAIServer(fault=lambda number, _: {"cut": 1} if number == 0 else None) as server:
        with pytest.raises(BudgetError):
            app.run(hosted(server, *texts, *settings), tmp_path / "run")
        sent = len(server.asked)
        with pytest.raises(BudgetError, match=r"\$0\.057000 are spent"):
            app.resume(tmp_path / "run")
        assert len(server.asked) == sent, "the lost answer still takes its room"
    first, *_ = RunFolder(tmp_path / "run").outcomes.read_all()
    assert (type(first), first.lost_answers) == (Failure, 1)


def test_a_run_records_how_many_requests_auto_had_in_flight(hosted: Compose, tmp_path: Path):
    texts = (*prompts_file(tmp_path, 150), "batch.size=auto")
    with OpenAIServer(first_token_s=0.05) as server:
        summary = app.run(hosted(server, *texts), tmp_path / "answered").summary
    in_flight = [requests for _, requests in summary.series["batch/requests_in_flight"]]
    assert max(in_flight) > 4
    assert server.most_open > 4  # the server counts from a request's arrival to its last byte, which is another time
    refused = {"status": 400, "body": {"error": {"message": "no"}}}
    with OpenAIServer(fault=lambda number, _: refused if number else None) as server:
        summary = app.run(hosted(server, *texts), tmp_path / "refused").summary
    assert [requests for _, requests in summary.series["batch/requests_in_flight"]][-1] <= 5
    assert server.most_open <= 5


def _limited(limit: str, url: str, folder: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    run = [sys.executable, "-m", "runner", "provider=openai", f"provider.base_url={url}/v1", "tracking=off"]
    command = ["bash", "-c", f'ulimit {limit}; exec "$@"', "run", *run, *prompts_file(folder, 200)]
    return subprocess.run([*command, *overrides], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.usefixtures("hosted")
def test_a_batch_size_beyond_the_limit_of_open_files_is_refused(tmp_path: Path):
    with OpenAIServer() as server:
        done = _limited("-n 100", server.url, tmp_path, "batch.size=150")
        assert not server.asked
    assert done.returncode == 2, done.stderr
    assert "batch.size=150" in done.stderr
    assert "ulimit -n 214" in done.stderr


@pytest.mark.usefixtures("hosted")
@pytest.mark.parametrize(("limit", "size"), [("-S -n 100", "150"), ("-n 100", "auto")])
def test_open_files_are_raised_as_far_as_they_may_and_auto_keeps_to_them(limit: str, size: str, tmp_path: Path):
    with OpenAIServer(first_token_s=0.1, hold_until_open=150 if size == "150" else 0) as server:
        done = _limited(limit, server.url, tmp_path, f"batch.size={size}")
    assert done.returncode == 0, done.stderr
    assert len(server.asked) == 200
    assert server.most_open <= (150 if size == "150" else 36)


def test_no_task_is_left_in_the_event_loop(hosted: Compose):
    async def count_tasks_after_calls(config: RunConfig) -> int:
        stop = StopRequest()
        gate = RequestGate(config.limits, Budget(None, None), None, stop)
        limited = LimitedProvider(
            build(config), config.model.id, config.limits, gate, stop, max_throttled_s=Waits().throttled_s
        )
        with limited:
            async with limited:
                await asyncio.gather(*(limited.generate(prompt, config.params()) for prompt in numbered(5)))
        return len(asyncio.all_tasks())

    with OpenAIServer() as server:
        assert asyncio.run(count_tasks_after_calls(hosted(server, "limits.requests_per_minute=600"))) == 1


def test_an_end_in_the_middle_of_a_split_keeps_the_parts_that_were_answered(hosted: Compose):
    def fault(number: int, body: dict[str, Any]) -> dict[str, Any] | None:
        if number == 2:
            calls.stop.request(Interrupted("interrupted"))
        return {"status": 400, "body": {"error": {"message": "no"}}} if "bad" in body["prompt"] else None

    texts = ["a", "b", "c", "d", "bad", "f", "g", "h"]
    with OpenAIServer(fault=fault) as server:
        lists = ("provider.endpoint=completions", "batch.mode=static", "batch.size=8", "batch.order=given")
        config = hosted(server, *lists)
        calls = prepare_calls(config, Waits())
        outcomes = generate_until_stopped(calls, config, prompts(*texts))
    assert isinstance(calls.stop.reason, Interrupted)
    assert [outcome.prompt_id for outcome in outcomes if isinstance(outcome, Completion)] == ["p0", "p1", "p2", "p3"]
    assert len(server.asked) == 3


def test_a_list_is_split_no_further_once_prompts_failed_alone_in_a_row(hosted: Compose):
    with OpenAIServer(fault=lambda *_: {"status": 400, "body": {"error": {"message": "no"}}}) as server:
        config = hosted(server, "provider.endpoint=completions", "batch.mode=static", "batch.size=64")
        outcomes = generate(config, numbered(64))
    assert len(outcomes) == 64
    assert all(isinstance(outcome, Failure) for outcome in outcomes)
    assert len(server.asked) < 20, "127 requests find nothing that these do not"
