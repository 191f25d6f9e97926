"""Attempts, limits a minute, the budget and the window: on a local server that tells when requests arrived."""

import asyncio
import itertools
import logging
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.config.schema import GenerationParams, RunConfig
from runner.config.waits import Waits
from runner.dispatch.adaptive_concurrency import AdaptiveConcurrency
from runner.dispatch.call import estimate_tokens, max_tokens
from runner.dispatch.limited_provider import LimitedProvider
from runner.dispatch.stop import StopRequest
from runner.errors import AccessError, BudgetError, Interrupted, RunnerError, ServiceError
from runner.providers.echo import EchoProvider
from runner.providers.errors import CallError, ErrorPolicy
from runner.providers.factory import build
from runner.record.folder import RunFolder
from runner.types import Completion, Failure, Outcome, Prompt
from tests.conftest import Compose
from tests.factories import generate, outcomes_of, prompts
from tests.servers.openai_server import OpenAIServer

Hosted = Callable[..., RunConfig]
DEAR = "model.price={input_usd_per_million: 1000, output_usd_per_million: 1000}"
"""A tenth of a cent a token."""
SLOW_DOWN = {"status": 429, "headers": {"retry-after-ms": "20"}, "body": {"error": {"message": "slow down"}}}


@pytest.fixture
def hosted(config: Compose, monkeypatch: pytest.MonkeyPatch) -> Hosted:
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def made(server: OpenAIServer, *overrides: str) -> RunConfig:
        composed = config("provider=openai", f"provider.base_url={server.url}/v1", "batch.size=4", *overrides)
        return composed.with_mode(composed.batch.mode or "concurrent")

    return made


def numbered(count: int) -> list[Prompt]:
    return prompts(*map(str, range(count)))


def generate_impatiently(config: RunConfig, asked: Sequence[Prompt], throttled_s: float) -> list[Outcome]:
    return generate(config, asked, waits=Waits(throttled_s=throttled_s))


def many(folder: Path, count: int) -> tuple[str, str]:
    path = folder / "many.txt"
    path.write_text("".join(f"prompt number {number}\n" for number in range(count)))
    return "prompts=file", f"prompts.path={path}"


def completed(outcomes: Sequence[Outcome]) -> set[str]:
    return {outcome.prompt_id for outcome in outcomes if isinstance(outcome, Completion)}


def gaps_s(server: OpenAIServer) -> list[float]:
    return [later.arrived - earlier.arrived for earlier, later in itertools.pairwise(server.asked)]


def test_small_requests_use_what_a_second_allows(hosted: Hosted):
    assert estimate_tokens(numbered(1)[0]) + 46 == 50, "at 100 a second: two at once, and then one in 0.5 s"
    with OpenAIServer() as server:
        limits = ("limits.tokens_per_minute=6000", "generation.max_tokens=46", "batch.size=10")
        began = time.perf_counter()
        generate(hosted(server, *limits), numbered(10))
    for before, asked in enumerate(server.asked):
        assert asked.arrived - began >= (before - 1) * 0.5 - 0.1, "never more than the limit has allowed by then"


def test_requests_of_more_tokens_than_a_second_allows_leave_first_come_first_served(hosted: Hosted):
    with OpenAIServer() as server:  # 200 tokens each, 100 a second
        limits = ("limits.tokens_per_minute=6000", "generation.max_tokens=196", "batch.size=4")
        began = time.perf_counter()
        generate(hosted(server, *limits), numbered(4))
    assert [asked.body["messages"][0]["content"] for asked in server.asked] == list("0123")
    assert min(gaps_s(server)) > 1.4, "one in 2 s, and no burst at the end"
    first, last = server.asked[0], server.asked[-1]
    assert first.arrived - began < (last.arrived - began) / 2, "the first does not wait for the room of all"


def test_a_pause_saves_up_no_room(hosted: Hosted):
    def first(number: int, _: dict[str, Any]) -> dict[str, Any] | None:
        return {"status": 429, "headers": {"Retry-After": "3"}} if number == 0 else None

    with OpenAIServer(fault=first) as server:
        generate(hosted(server, "limits.requests_per_minute=60"), numbered(4))
    assert gaps_s(server)[0] > 2.5, "the pause"
    assert min(gaps_s(server)[1:]) > 0.4, "then one a second"


def test_throttled_attempts_do_not_count_and_every_prompt_completes(hosted: Hosted):
    chance = random.Random(0)
    with OpenAIServer(fault=lambda *_: SLOW_DOWN if chance.random() < 0.5 else None) as server:
        outcomes = generate(hosted(server, "batch.size=16"), numbered(100))
    assert len(completed(outcomes)) == 100
    assert max(outcome.attempts for outcome in outcomes) > 5, "more than limits.max_attempts, and on record"
    assert sum(outcome.attempts for outcome in outcomes) == len(server.asked)


def test_attempts_that_failed_count_beside_those_that_were_throttled(hosted: Hosted):
    faults = itertools.cycle([SLOW_DOWN, SLOW_DOWN, {"status": 500}])
    with OpenAIServer(fault=lambda *_: next(faults)) as server:
        (failed,) = generate(hosted(server, "limits.max_attempts=2"), numbered(1))
    assert isinstance(failed, Failure)
    assert (failed.attempts, len(server.asked), failed.error.type) == (6, 6, "InternalServerError")


@pytest.mark.parametrize(("answered", "ending"), [(0, AccessError), (3, ServiceError)])
def test_a_service_that_only_throttles_ends_the_run(answered: int, ending: type[RunnerError], hosted: Hosted):
    with OpenAIServer(fault=lambda number, _: SLOW_DOWN if number >= answered else None) as server:
        with pytest.raises(ending, match=r"slow down: the service has throttled every request for .*batch\.size"):
            generate_impatiently(hosted(server), numbered(50), throttled_s=0.3)
        assert len(server.asked) > answered + 5, "it was asked again, more often than limits.max_attempts"


def test_a_prompt_that_is_always_throttled_fails_alone(hosted: Hosted):
    def too_large(_: int, body: dict[str, Any]) -> dict[str, Any] | None:
        return SLOW_DOWN if body["messages"][0]["content"] == "0" else None

    with OpenAIServer(fault=too_large, first_token_s=0.05) as server:
        outcomes = generate_impatiently(hosted(server, "batch.size=2"), numbered(60), throttled_s=0.3)
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert (failed.prompt_id, failed.error.type, failed.error.retryable) == ("p0", "RateLimitError", True)
    assert "throttled for" in failed.error.message
    assert len(completed(outcomes)) == 59


def test_a_long_pause_is_said_once_and_an_interrupt_ends_it(hosted: Hosted, caplog: pytest.LogCaptureFixture):
    stop, began = StopRequest(), time.perf_counter()
    threading.Timer(1.0, stop.request, [Interrupted("interrupted")]).start()
    with (
        caplog.at_level(logging.INFO, logger="runner.dispatch.gate"),
        OpenAIServer(fault=lambda *_: {"status": 429, "headers": {"Retry-After": "120"}}) as server,
        pytest.raises(Interrupted),
    ):
        generate(hosted(server), numbered(8), stop=stop)
    assert time.perf_counter() - began < 60
    assert [record.getMessage() for record in caplog.records] == [
        "the service asks for a pause of 120 s (RateLimitError): waiting"
    ]


class _Asking(EchoProvider):
    """Answers nothing, and asks for a wait."""

    wait_s = 0.0

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Sequence[Outcome]:
        raise CallError(
            "Busy", "no", ErrorPolicy(retryable=True, throttled=True, not_billed=True), retry_after_s=self.wait_s
        )


@pytest.mark.parametrize("wait_s", [3601.0, float("inf"), float("nan")])
def test_a_wait_that_nobody_would_wait_ends_the_run(wait_s: float, config: Compose):
    composed = config("provider=echo", "batch.mode=concurrent")
    provider = _Asking(model=composed.model, **composed.provider.settings)
    provider.wait_s = wait_s
    with pytest.raises(AccessError, match=f"Busy: no: the service asks to wait {wait_s:.0f} s"):
        outcomes_of(paced(provider, composed, StopRequest()), numbered(3), composed.params(), composed.batch)


def test_a_service_that_asks_for_a_day_is_asked_once(hosted: Hosted):
    with OpenAIServer(fault=lambda *_: {"status": 503, "headers": {"Retry-After": "86400"}}) as server:
        with pytest.raises(AccessError, match="asks to wait 86400 s"):
            generate(hosted(server, "batch.size=1"), numbered(3))
        assert len(server.asked) == 1


def test_a_budget_that_is_enough_stops_nothing_whatever_is_in_flight(hosted: Hosted):
    # each costs $0.002 and could cost $0.133: the ten in flight could cost $1.33
    with OpenAIServer(first_token_s=0.05) as server:
        settings = (DEAR, "generation.max_tokens=100", "batch.size=10", "limits.max_cost_usd=0.3")
        outcomes = generate(hosted(server, *settings), numbered(30))
    assert len(completed(outcomes)) == len(server.asked) == 30
    assert server.most_open == 2, "as many as the budget has room for"


def test_a_call_that_is_sent_again_holds_no_budget_meanwhile(hosted: Hosted):
    sent: set[str] = set()

    def each_once(_: int, body: dict[str, Any]) -> dict[str, Any] | None:
        text = body["messages"][0]["content"]
        return None if text in sent else sent.add(text) or SLOW_DOWN

    with OpenAIServer(fault=each_once) as server:
        settings = (DEAR, "generation.max_tokens=100", "limits.max_cost_usd=0.2")  # room for one at a time
        outcomes = generate(hosted(server, *settings), numbered(8))
    assert len(completed(outcomes)) == 8
    assert len(server.asked) == 16


def test_an_interrupt_ends_the_waiting_for_the_budget(hosted: Hosted):
    stop = StopRequest()
    threading.Timer(0.5, stop.request, [Interrupted("interrupted")]).start()
    with OpenAIServer(fault=lambda *_: {"hang": 2}) as server:
        settings = (DEAR, "generation.max_tokens=100", "limits.max_cost_usd=0.2")
        with pytest.raises(Interrupted):
            generate(hosted(server, *settings), numbered(4), stop=stop)
        assert len(server.asked) == 1


def test_the_budget_counts_what_was_spent_before_a_resume(hosted: Hosted, tmp_path: Path):
    texts = many(tmp_path, 100)  # $0.006 each, and $0.057 at most
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
        outcome.usage for outcome in RunFolder(tmp_path / "run").outcomes.read_all() if isinstance(outcome, Completion)
    ]
    assert 0.14 < sum(usage.input_tokens + usage.output_tokens for usage in usages) / 1000 <= 0.2


def test_the_most_that_a_request_may_cost_holds_for_any_language(hosted: Hosted):
    letters = prompts("a " * 100)  # 100 tokens for this server, 54 by the rule of thumb
    with OpenAIServer() as server:
        with pytest.raises(BudgetError, match=r"this one could cost \$0\.233"):
            generate(hosted(server, DEAR, "generation.max_tokens=1", "limits.max_cost_usd=0.08"), letters)
        assert not server.asked
    (chinese,) = prompts("\u8a9e" * 100)
    assert max_tokens(chinese) >= 300 > estimate_tokens(chinese)


def test_auto_grows_only_by_answers_and_as_far_as_requests_were_in_flight(hosted: Hosted, tmp_path: Path):
    texts = (*many(tmp_path, 150), "batch.size=auto")
    with OpenAIServer(first_token_s=0.2) as server:
        summary = app.run(hosted(server, *texts, "limits.requests_per_minute=1800"), tmp_path / "limited")
    in_flight = [requests for _, requests in summary.series["batch/requests_in_flight"]]
    assert 4 < max(in_flight) <= server.most_open
    refused = {"status": 400, "body": {"error": {"message": "no"}}}
    with OpenAIServer(fault=lambda number, _: refused if number else None) as server:
        summary = app.run(hosted(server, *texts), tmp_path / "refused")
    assert [requests for _, requests in summary.series["batch/requests_in_flight"]][-1] <= 5
    assert server.most_open <= 5


def fill(window: AdaptiveConcurrency) -> list[int]:
    sent = []
    while window.has_room:
        sent.append(window.enter())
    return sent


def test_a_window_doubles_a_round_and_halves_once_for_a_round():
    window = AdaptiveConcurrency(4, 100)
    for expected in (4, 8, 16):
        sent = fill(window)
        assert len(sent) == expected
        for number in sent:
            window.leave(number, answered=True)
    sent = fill(window)
    for number in sent:
        window.leave(number, answered=False)
        window.throttled(number)
    assert (len(sent), len(fill(window))) == (32, 16)
    assert [requests for _, requests in window.path] == [4, 8, 16, 32, 16]


def test_a_window_that_is_not_full_learns_nothing():
    window = AdaptiveConcurrency(4, 100)
    for _ in range(20):
        window.leave(window.enter(), answered=True)
    assert len(fill(window)) == 4
    assert len(fill(AdaptiveConcurrency(4, 2))) == 2, "nor is it ever wider than it may be"


def _limited(limit: str, url: str, folder: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    run = [sys.executable, "-m", "runner", "provider=openai", f"provider.base_url={url}/v1", "tracking=off"]
    command = ["bash", "-c", f'ulimit {limit}; exec "$@"', "run", *run, *many(folder, 200)]
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


def test_nothing_is_left_in_the_loop(hosted: Hosted):
    """A loop of one's own ends with no task pending: asyncio.run would wait for it, or warn."""

    async def one(config: RunConfig) -> int:
        with build(config) as provider:
            async with LimitedProvider(provider, config.model.id, config.limits, None, StopRequest()) as calls:
                await asyncio.gather(*(calls.generate(prompt, config.params()) for prompt in numbered(5)))
        return len(asyncio.all_tasks())

    with OpenAIServer() as server:
        assert asyncio.run(one(hosted(server, "limits.requests_per_minute=600"))) == 1


def test_an_end_in_the_middle_of_a_split_keeps_the_parts_that_were_answered(hosted: Hosted):
    stop = StopRequest()

    def fault(number: int, body: dict[str, Any]) -> dict[str, Any] | None:
        if number == 2:
            stop.request(Interrupted("interrupted"))
        return {"status": 400, "body": {"error": {"message": "no"}}} if "bad" in body["prompt"] else None

    texts = ["a", "b", "c", "d", "bad", "f", "g", "h"]
    with OpenAIServer(fault=fault) as server:
        lists = ("provider.endpoint=completions", "batch.mode=static", "batch.size=8", "batch.order=given")
        config = hosted(server, *lists)
        kept = generate(config, prompts(*texts), stop=stop)
    assert [outcome.prompt_id for outcome in kept if isinstance(outcome, Completion)] == ["p0", "p1", "p2", "p3"]
    assert len(server.asked) == 3


def test_a_list_is_split_no_further_once_prompts_failed_alone_in_a_row(hosted: Hosted):
    with OpenAIServer(fault=lambda *_: {"status": 400, "body": {"error": {"message": "no"}}}) as server:
        config = hosted(server, "provider.endpoint=completions", "batch.mode=static", "batch.size=64")
        outcomes = generate(config, numbered(64))
    assert len(outcomes) == 64
    assert all(isinstance(outcome, Failure) for outcome in outcomes)
    assert len(server.asked) < 20, "127 requests find nothing that these do not"
