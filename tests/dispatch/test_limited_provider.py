"""Attempts, limits per minute, pauses, budget and concurrency: the arithmetic, on a virtual clock."""

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest

from runner.config.schema import GenerationParams, RunConfig
from runner.config.waits import Waits
from runner.dispatch.adaptive_concurrency import AdaptiveConcurrency
from runner.dispatch.budget import Budget, lost_usd
from runner.dispatch.call import estimate_tokens, max_input_tokens
from runner.dispatch.gate import RequestGate
from runner.dispatch.limited_provider import LimitedProvider
from runner.dispatch.stop import Stopped, StopRequest
from runner.errors import AccessError, BudgetError, Interrupted, RunnerError, ServiceError
from runner.pricing import find_price
from runner.providers.echo import EchoProvider
from runner.providers.errors import RETRY, THROTTLED, CallError, ErrorPolicy
from runner.types import Generated, Prompt
from tests.conftest import Compose
from tests.factories import DEAR, completion, failure, numbered, outcomes_of, prompts
from tests.virtual_clock import run_on_virtual_clock

Fault = Callable[[int, Prompt], CallError | None]
NOT_BILLED = ErrorPolicy(retryable=True, throttled=True, not_billed=True)
SLOW_DOWN = CallError("RateLimitError", "slow down", NOT_BILLED, retry_after_s=0.02)
SLOW_DOWN_MUCH = CallError("RateLimitError", "slow down", NOT_BILLED, retry_after_s=20)
exactly = partial(pytest.approx, abs=1e-6)
"""Up to the nanoseconds that a turn of the loop takes on the virtual clock."""


class ObservedEcho(EchoProvider):
    """Answers like echo, records when each request left, and raises what `fault` returns for a request."""

    def __init__(self, config: RunConfig, fault: Fault, latency_s: float) -> None:
        super().__init__(model=config.model, latency_s=0, fail_on=None)
        self.fault, self.latency_s = fault, latency_s
        self.sent_at: list[float] = []
        self.sent_ids: list[str] = []
        self.in_flight = self.max_in_flight = 0

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
        self.sent_at.append(asyncio.get_running_loop().time())
        self.sent_ids.append(prompt.id)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        number = len(self.sent_at) - 1
        try:
            await asyncio.sleep(self.latency_s)
            if error := self.fault(number, prompt):
                raise error
            return await super().generate(prompt, params)
        finally:
            self.in_flight -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What was sent, and what became of it. `results` lacks prompts that were not sent before the end."""

    provider: ObservedEcho
    results: dict[str, Generated]
    reason: RunnerError | None
    ended_at: float

    @property
    def gaps_s(self) -> list[float]:
        return [later - earlier for earlier, later in itertools.pairwise(self.provider.sent_at)]

    @property
    def completed(self) -> set[str]:
        return {prompt_id for prompt_id, result in self.results.items() if result.error is None}


Simulate = Callable[..., Simulated]


@pytest.fixture
def simulate(config: Compose) -> Simulate:
    """Send prompts through a LimitedProvider on a virtual clock, `workers` at a time."""

    async def send(
        composed: RunConfig, asked: Sequence[Prompt], workers: int, provider: ObservedEcho,
        concurrency: AdaptiveConcurrency | None, interrupted_after_s: float | None,
    ) -> Simulated:  # fmt: skip
        loop, stop, results = asyncio.get_running_loop(), StopRequest(), dict[str, Generated]()
        if interrupted_after_s is not None:
            loop.call_later(interrupted_after_s, stop.request, Interrupted("interrupted"))
        budget = Budget(composed.limits.max_cost_usd, find_price(composed.model, None))
        limited = LimitedProvider(
            provider, composed.model.id, composed.limits, RequestGate(composed.limits, budget, concurrency, stop), stop,
            max_throttled_s=Waits().throttled_s, clock=loop.time,
        )  # fmt: skip
        waiting = iter(asked)

        async def work() -> None:
            for prompt in waiting:
                try:
                    results[prompt.id] = await limited.generate(prompt, composed.params())
                except Stopped:
                    return

        with limited:
            async with limited:
                await asyncio.gather(*(work() for _ in range(workers)))
        return Simulated(provider=provider, results=results, reason=stop.reason, ended_at=loop.time())

    def run(
        asked: Sequence[Prompt], *overrides: str, workers: int = 4, fault: Fault = lambda *_: None, latency_s: float = 0,
        concurrency: AdaptiveConcurrency | None = None, interrupted_after_s: float | None = None,
    ) -> Simulated:  # fmt: skip
        composed = config("provider=echo", *overrides)
        provider = ObservedEcho(composed, fault, latency_s)
        return run_on_virtual_clock(send(composed, asked, workers, provider, concurrency, interrupted_after_s))

    return run


def test_small_requests_use_what_a_second_allows(simulate: Simulate):
    assert estimate_tokens(numbered(1)[0]) + 46 == 50, "at 100 a second: two at once, and then one in 0.5 s"
    run = simulate(numbered(10), "limits.tokens_per_minute=6000", "generation.max_tokens=46", workers=10)
    assert run.provider.sent_at == exactly([0, 0, *(0.5 * number for number in range(1, 9))])


def test_requests_of_more_tokens_than_a_second_allows_leave_first_come_first_served(simulate: Simulate):
    run = simulate(numbered(4), "limits.tokens_per_minute=6000", "generation.max_tokens=196")  # 200 each, 100 a second
    assert run.provider.sent_ids == ["p0", "p1", "p2", "p3"]
    assert run.provider.sent_at == exactly([1, 3, 5, 7]), "one in 2 s; the first does not wait for the others"


def test_requests_per_minute_are_spread_over_the_minute(simulate: Simulate):
    run = simulate(numbered(300), "limits.requests_per_minute=120", workers=300)
    assert run.gaps_s == exactly([0.0, *[0.5] * 298])
    slow = simulate(numbered(5), "limits.requests_per_minute=2")
    assert slow.provider.sent_at == exactly([0, 30, 60, 90, 120])


def test_no_minute_has_more_requests_than_its_limit_and_what_a_second_may_add(simulate: Simulate):
    sent_at = simulate(numbered(400), "limits.requests_per_minute=60", workers=50, latency_s=7).provider.sent_at
    for start in sent_at:
        assert sum(start <= moment < start + 60 - 1e-6 for moment in sent_at) <= 61


def test_a_prompt_is_queued_from_when_the_mode_has_taken_it_until_its_first_attempt_leaves(simulate: Simulate):
    run = simulate(numbered(4), "limits.requests_per_minute=60", latency_s=0.25)  # one a second; all taken at 0
    assert [run.results[f"p{number}"].timing.queued_s for number in range(4)] == exactly([0, 1, 2, 3])
    one_worker = simulate(numbered(4), "limits.requests_per_minute=60", latency_s=0.25, workers=1)
    queued_s = [one_worker.results[f"p{number}"].timing.queued_s for number in range(4)]
    assert queued_s == exactly([0, 0.75, 0.75, 0.75]), "taken when the answer before it has come"


def test_the_room_in_budget_and_concurrency_is_waited_for_in_the_queue(simulate: Simulate):
    budget = (DEAR, "generation.max_tokens=100", "limits.max_cost_usd=0.2")  # room for one at a time
    run = simulate(numbered(3), *budget, latency_s=2)
    assert [run.results[f"p{number}"].timing.queued_s for number in range(3)] == exactly([0, 2, 4])
    run = simulate(numbered(3), latency_s=2, concurrency=AdaptiveConcurrency(1, 1))
    assert [run.results[f"p{number}"].timing.queued_s for number in range(3)] == exactly([0, 2, 4])


def test_a_pause_is_queueing_before_the_first_attempt_and_latency_after_it(simulate: Simulate):
    asks_to_wait = CallError("RateLimitError", "slow down", THROTTLED, retry_after_s=30)
    run = simulate(numbered(2), workers=1, fault=lambda number, _: asks_to_wait if number == 0 else None)
    throttled, other = run.results["p0"], run.results["p1"]
    assert throttled.attempts == 2
    assert throttled.timing.queued_s == exactly(0)
    assert other.timing.queued_s == exactly(0), "it was taken after the pause"
    run = simulate(
        numbered(2), "limits.requests_per_minute=30", fault=lambda number, _: asks_to_wait if number == 0 else None
    )
    assert (run.results["p1"].timing.queued_s or 0) >= 30, "the pause began while it was queued"


def test_waiting_for_the_mode_to_let_requests_leave_one_by_one_is_queueing(config: Compose):
    """On the real clock: each request keeps the event loop busy for 30 ms before it is on its way."""

    class SlowToBuild(EchoProvider):
        async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
            time.sleep(0.03)
            return await super().generate(prompt, params)

    composed, stop = config("provider=echo", "batch.size=4"), StopRequest()
    provider = SlowToBuild(model=composed.model, latency_s=0, fail_on=None)
    gate = RequestGate(composed.limits, Budget(None, None), None, stop)
    limited = LimitedProvider(provider, composed.model.id, composed.limits, gate, stop, max_throttled_s=1)
    with limited:
        outcomes = outcomes_of(limited, numbered(4), composed.params(), composed.with_mode("concurrent").batch)
    queued_s = {outcome.prompt_id: outcome.timing.queued_s or 0 for outcome in outcomes}
    assert queued_s["p0"] < 0.03
    assert queued_s["p3"] >= 0.09
    assert limited.cpu_s < 0.1, "the loop's thread slept; its CPU was free"


def test_the_cpu_of_the_event_loops_thread_is_counted(config: Compose):
    class Busy(EchoProvider):
        async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
            until = time.thread_time() + 0.05
            while time.thread_time() < until:
                pass
            return await super().generate(prompt, params)

    composed, stop = config("provider=echo", "batch.size=4"), StopRequest()
    provider = Busy(model=composed.model, latency_s=0, fail_on=None)
    gate = RequestGate(composed.limits, Budget(None, None), None, stop)
    limited = LimitedProvider(provider, composed.model.id, composed.limits, gate, stop, max_throttled_s=1)
    with limited:
        outcomes_of(limited, numbered(4), composed.params(), composed.with_mode("concurrent").batch)
    assert 0.2 <= limited.cpu_s < 0.5


def test_an_answer_after_a_failed_attempt_has_the_last_attempts_latency_and_counts_what_was_lost(simulate: Simulate):
    broken, refused = (
        CallError("Cut", "cut", RETRY),
        CallError("Busy", "no", ErrorPolicy(retryable=True, not_billed=True)),
    )
    faults = {0: broken, 1: refused}
    run = simulate(numbered(2), workers=1, fault=lambda number, _: faults.get(number))
    retried, at_once = run.results["p0"], run.results["p1"]
    assert (retried.attempts, retried.lost_answers, at_once.attempts, at_once.lost_answers) == (3, 1, 1, 0)
    assert retried.timing.last_attempt_latency_s is not None
    assert retried.timing.last_attempt_latency_s <= retried.timing.elapsed_s
    assert at_once.timing.last_attempt_latency_s is None


def test_a_call_that_was_stopped_after_a_lost_answer_is_on_record_with_it(simulate: Simulate):
    broken = CallError("Cut", "cut", RETRY)
    settings = (DEAR, "generation.max_tokens=10", "limits.max_cost_usd=0.06")  # room for one: $0.043 at most
    run = simulate(numbered(1), *settings, fault=lambda *_: broken)
    assert isinstance(run.reason, BudgetError)
    failed = run.results["p0"]
    assert failed.error is not None
    assert (failed.error.type, failed.attempts, failed.lost_answers) == ("Cut", 1, 1)


def test_a_lost_answer_before_an_error_that_ends_the_run_is_on_record(simulate: Simulate):
    faults = [CallError("Cut", "cut", RETRY), CallError("Unauthorized", "no", ErrorPolicy(fatal=True, not_billed=True))]
    run = simulate(numbered(2), workers=1, fault=lambda number, _: faults[number])
    assert isinstance(run.reason, AccessError)
    (failed,) = run.results.values()
    assert failed.error is not None
    assert (failed.error.type, failed.attempts, failed.lost_answers) == ("Unauthorized", 2, 1)


def test_the_maximum_cost_of_lost_answers_is_that_of_known_input_or_of_its_bound_and_of_max_tokens(config: Compose):
    composed = config("provider=echo", DEAR, "generation.max_tokens=10", "generation.n=1")
    price = find_price(composed.model, None)
    assert price is not None
    asked = prompts("a b", "\u8a9e")
    answered, failed = replace(completion("p0", tokens_in=2), lost_answers=2), replace(failure("p1"), lost_answers=1)
    # at $0.001 a token: 2 x (2 + 10) known; 3 bytes and 32 of the template, + 10 unknown
    assert lost_usd([answered, failed], asked, composed.params(), price) == pytest.approx(0.024 + 0.045)
    second_choice = replace(answered, choice=1)
    twice = composed.params().model_copy(update={"n": 2})
    assert lost_usd([answered, second_choice], asked, twice, price) == pytest.approx(2 * (2 + 20) / 1000)
    assert lost_usd([completion("p0"), failure("p1")], asked, composed.params(), price) == 0


def test_a_pause_saves_up_no_room(simulate: Simulate):
    asks_to_wait = CallError("RateLimitError", "slow down", THROTTLED, retry_after_s=3)
    run = simulate(
        numbered(4), "limits.requests_per_minute=60", fault=lambda number, _: asks_to_wait if number == 0 else None
    )
    assert run.gaps_s[0] == pytest.approx(3, abs=0.01), "the pause"
    assert run.gaps_s[1:] == pytest.approx([1, 1, 1]), "then one a second"
    assert len(run.completed) == 4


def test_after_a_throttled_request_every_request_waits_as_long_as_the_service_asked(simulate: Simulate):
    asks_to_wait = CallError("RateLimitError", "slow down", THROTTLED, retry_after_s=30)
    run = simulate(numbered(20), workers=5, latency_s=1, fault=lambda number, _: asks_to_wait if number == 0 else None)
    assert run.provider.sent_at[:5] == exactly([0] * 5)
    assert min(run.provider.sent_at[5:]) == exactly(31)
    assert len(run.completed) == 20


def test_throttled_attempts_do_not_count_and_every_prompt_completes(simulate: Simulate):
    chance = random.Random(0)
    run = simulate(numbered(100), workers=16, fault=lambda *_: SLOW_DOWN if chance.random() < 0.5 else None)
    assert len(run.completed) == 100
    attempts = [result.attempts for result in run.results.values()]
    assert max(attempts) > 5, "more than limits.max_attempts, and on record"
    assert sum(attempts) == len(run.provider.sent_at)


def test_attempts_that_failed_count_beside_those_that_were_throttled(simulate: Simulate):
    faults = itertools.cycle([SLOW_DOWN, SLOW_DOWN, CallError("InternalServerError", "broken", RETRY)])
    run = simulate(numbered(1), "limits.max_attempts=2", fault=lambda *_: next(faults))
    failed = run.results["p0"]
    assert failed.error is not None
    assert (failed.attempts, len(run.provider.sent_at), failed.error.type) == (6, 6, "InternalServerError")


@pytest.mark.parametrize(("answered", "ending"), [(0, AccessError), (3, ServiceError)])
def test_a_service_that_only_throttles_ends_the_run(answered: int, ending: type[RunnerError], simulate: Simulate):
    run = simulate(numbered(50), fault=lambda number, _: SLOW_DOWN_MUCH if number >= answered else None)
    assert type(run.reason) is ending
    assert "slow down: the service has throttled every request for 9" in str(run.reason)
    assert "batch.size" in str(run.reason)
    assert run.ended_at == pytest.approx(920, abs=25), "Waits.throttled_s"
    assert len(run.provider.sent_at) > answered + 5, "it was asked again, more often than limits.max_attempts"


def test_a_prompt_that_is_always_throttled_fails_alone(simulate: Simulate):
    run = simulate(
        numbered(100), workers=2, latency_s=15, fault=lambda _, prompt: SLOW_DOWN_MUCH if prompt.id == "p0" else None
    )
    failed = run.results["p0"]
    assert failed.error is not None
    assert (failed.error.type, failed.error.retryable) == ("RateLimitError", True)
    assert "(throttled for 9" in failed.error.message
    assert len(run.completed) == 99
    assert run.reason is None


def test_a_long_pause_is_logged_once_and_an_interrupt_ends_it(simulate: Simulate, caplog: pytest.LogCaptureFixture):
    asks_to_wait = CallError("RateLimitError", "slow down", THROTTLED, retry_after_s=120)
    with caplog.at_level(logging.INFO, logger="runner.dispatch.gate"):
        run = simulate(numbered(8), fault=lambda *_: asks_to_wait, interrupted_after_s=50)
    assert isinstance(run.reason, Interrupted)
    assert run.ended_at == pytest.approx(50, abs=0.3)
    assert [record.getMessage() for record in caplog.records] == [
        "the service asks for a pause of 120 s (RateLimitError): waiting"
    ]


def test_a_long_wait_that_one_request_was_asked_for_is_logged(simulate: Simulate, caplog: pytest.LogCaptureFixture):
    busy = CallError("InternalServerError", "busy", RETRY, retry_after_s=3000)
    with caplog.at_level(logging.INFO, logger="runner.dispatch.gate"):
        run = simulate(numbered(2), workers=1, fault=lambda number, _: busy if number == 0 else None)
    assert run.completed == {"p0", "p1"}
    assert [record.getMessage() for record in caplog.records] == [
        "the service asks for a pause of 3000 s (InternalServerError): waiting"
    ]


@pytest.mark.parametrize("wait_s", [3601.0, float("inf"), float("nan")])
def test_a_wait_that_nobody_would_wait_ends_the_run(wait_s: float, simulate: Simulate):
    run = simulate(numbered(3), fault=lambda *_: CallError("Busy", "no", NOT_BILLED, retry_after_s=wait_s))
    assert isinstance(run.reason, AccessError)
    assert f"Busy: no: the service asks to wait {wait_s:.0f} s" in str(run.reason)


def test_a_budget_that_is_enough_stops_nothing_whatever_is_in_flight(simulate: Simulate):
    # each costs $0.002 and could cost $0.133: the ten in flight could cost $1.33
    settings = (DEAR, "generation.max_tokens=100", "limits.max_cost_usd=0.3")
    run = simulate(numbered(30), *settings, workers=10, latency_s=0.05)
    assert len(run.completed) == len(run.provider.sent_at) == 30
    assert run.provider.max_in_flight == 2, "as many as the budget has room for"


def test_a_call_that_is_sent_again_holds_no_budget_meanwhile(simulate: Simulate):
    throttled: set[str] = set()

    def each_once(_: int, prompt: Prompt) -> CallError | None:
        is_second = prompt.id in throttled
        throttled.add(prompt.id)
        return None if is_second else SLOW_DOWN

    settings = (DEAR, "generation.max_tokens=100", "limits.max_cost_usd=0.2")  # room for one at a time
    run = simulate(numbered(8), *settings, fault=each_once)
    assert len(run.completed) == 8
    assert len(run.provider.sent_at) == 16


def test_an_interrupt_ends_the_waiting_for_the_budget(simulate: Simulate):
    settings = (DEAR, "generation.max_tokens=100", "limits.max_cost_usd=0.2")
    run = simulate(numbered(4), *settings, latency_s=2, interrupted_after_s=0.5)
    assert isinstance(run.reason, Interrupted)
    assert len(run.provider.sent_at) == 1
    assert run.completed == {"p0"}, "what is in flight is awaited"


def test_the_maximum_cost_of_a_request_holds_for_any_language(simulate: Simulate):
    letters = prompts("a " * 100)  # 100 tokens where every letter is one, 54 by the rule of thumb
    run = simulate(letters, DEAR, "generation.max_tokens=1", "limits.max_cost_usd=0.08")
    assert isinstance(run.reason, BudgetError)
    assert "this one could cost $0.233" in str(run.reason)
    assert not run.provider.sent_at
    (chinese,) = prompts("\u8a9e" * 100)
    assert max_input_tokens(chinese) >= 300 > estimate_tokens(chinese)


def test_concurrency_grows_only_as_far_as_requests_were_in_flight(simulate: Simulate):
    concurrency = AdaptiveConcurrency(4, 1000)
    run = simulate(
        numbered(150), "limits.requests_per_minute=1800", workers=150, latency_s=0.2, concurrency=concurrency
    )
    in_flight = [requests for _, requests in concurrency.path]
    assert 4 < max(in_flight) <= run.provider.max_in_flight < 150
    assert len(run.completed) == 150


def test_concurrency_does_not_grow_by_refused_requests(simulate: Simulate):
    concurrency = AdaptiveConcurrency(4, 1000)
    refused = CallError("BadRequest", "no")
    run = simulate(
        numbered(150),
        workers=150,
        latency_s=0.1,
        concurrency=concurrency,
        fault=lambda number, _: refused if number else None,
    )
    assert len(run.results) == 150
    assert [requests for _, requests in concurrency.path][-1] <= 5
    assert run.provider.max_in_flight <= 5
