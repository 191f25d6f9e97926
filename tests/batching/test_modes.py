"""The batch modes on the echo provider: every prompt answered once, batches, seeds, requests in flight."""

import asyncio
import time
from datetime import timedelta
from typing import Literal

import pytest

from runner.batching import concurrent, static
from runner.batching.base import PendingPrompts
from runner.batching.modes import modes_of
from runner.config.schema import BatchConfig, BatchMode, GenerationParams
from runner.providers.echo import EchoProvider
from runner.providers.factory import build
from runner.types import Completion, Failure, Generated, Prompt, Stopwatch
from tests.conftest import Compose
from tests.factories import outcomes_of, prompts, usage_of


def batch(mode: BatchMode = "static", size: int = 2, order: Literal["length", "given"] = "given") -> BatchConfig:
    return BatchConfig(mode=mode, size=size, order=order, warmup=0, detach=False)


@pytest.fixture
def echo(config: Compose) -> EchoProvider:
    built = build(config("provider=echo", "provider.fail_on=bad"))
    assert isinstance(built, EchoProvider)
    return built


@pytest.fixture
def params(config: Compose) -> GenerationParams:
    return config("provider=echo").params()


@pytest.mark.parametrize("mode", modes_of(EchoProvider))
@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_mode_answers_every_prompt_once(mode: BatchMode, size: int, echo: EchoProvider, params: GenerationParams):
    asked = prompts(*(f"text {i}" if i % 4 else f"bad {i}" for i in range(10)))
    outcomes = outcomes_of(echo, asked, params.model_copy(update={"n": 2}), batch(mode, size))
    completions = [outcome for outcome in outcomes if isinstance(outcome, Completion)]
    assert sorted((c.prompt_id, c.choice, c.text) for c in completions) == [
        (f"p{i}", choice, f"text {i}") for i in range(10) if i % 4 for choice in (0, 1)
    ]
    assert {o.prompt_id for o in outcomes if isinstance(o, Failure)} == {"p0", "p4", "p8"}


def test_echo_stops_at_a_stop_sequence_and_at_max_tokens(echo: EchoProvider, params: GenerationParams):
    short = params.model_copy(update={"max_tokens": 3, "stop_sequences": ("STOP",)})
    cut, stopped = echo.generate_batch(prompts("a b c d", "a STOP b"), short)
    (cut_answer,), (stopped_answer,) = cut.answers, stopped.answers
    assert (cut_answer.text, cut_answer.finish_reason, usage_of(cut_answer).output_tokens) == ("a b c", "length", 3)
    assert (stopped_answer.text, stopped_answer.finish_reason) == ("a ", "stop")
    assert usage_of(stopped_answer).output_tokens == 1


def test_batches_are_formed_by_length_longest_first_and_always_the_same(echo: EchoProvider):
    asked = prompts("a", "a b c", "a b", "c", "a b c d")
    batches = list(static.form_batches(echo, asked, batch(order="length")))
    assert [[prompt.id for prompt in group] for group in batches] == [["p4", "p1"], ["p2", "p0"], ["p3"]]
    assert batches == list(static.form_batches(echo, asked, batch(order="length")))
    given = static.form_batches(echo, asked, batch(order="given"))
    assert [prompt.id for group in given for prompt in group] == ["p0", "p1", "p2", "p3", "p4"]


def test_a_batchs_seed_depends_on_the_run_and_on_its_own_prompts_only():
    first, second = tuple(prompts("a", "b")), tuple(prompts("a"))
    assert static.batch_seed(0, first) == static.batch_seed(0, first)
    assert len({static.batch_seed(0, first), static.batch_seed(1, first), static.batch_seed(0, second)}) == 3
    assert 0 <= static.batch_seed(0, first) < 2**32


def test_continuous_batching_refills_a_slot_as_soon_as_it_is_free(config: Compose, params: GenerationParams):
    echo = build(config("provider=echo", "provider.latency_s=0.05"))
    outcomes = outcomes_of(echo, prompts(*"abcdefgh"), params, batch("continuous", 4))
    starts = [outcome.timing.started_at for outcome in outcomes]
    ends = [
        start + timedelta(seconds=outcome.timing.elapsed_s) for start, outcome in zip(starts, outcomes, strict=True)
    ]
    assert all(ends[index] <= starts[index + 4] for index in range(4)), "never more than four alive"
    assert starts[3] < ends[0], "four at once"


class Recorder:
    """A provider that counts requests in flight, and may raise an error of its own."""

    def __init__(self, latency_s: float, *, breaks_at: str | None = None) -> None:
        self.latency_s, self.breaks_at = latency_s, breaks_at
        self.in_flight = self.max_in_flight = self.requests = self.cancelled = 0

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
        self.requests += 1
        if prompt.id == self.breaks_at:
            raise LookupError(prompt.id)
        watch = Stopwatch()
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        return Generated(model="recorder", timing=watch.stop())


def test_batch_size_requests_are_in_flight(params: GenerationParams):
    recorder = Recorder(0.02)
    outcomes_of(recorder, prompts(*"abcdefghijkl"), params, batch("concurrent", 5))
    assert (recorder.max_in_flight, recorder.requests) == (5, 12)


def test_a_broken_provider_ends_the_run_with_its_own_error(params: GenerationParams):
    recorder = Recorder(30, breaks_at="p2")
    started = time.monotonic()
    with pytest.raises(LookupError, match="p2"):
        outcomes_of(recorder, prompts(*"abc"), params, batch("concurrent", 3))
    assert recorder.cancelled == 2
    assert time.monotonic() - started < 20


def test_leaving_early_cancels_what_is_in_flight(echo: EchoProvider, params: GenerationParams):
    class Mixed(Recorder):
        async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
            if prompt.id == "p0":
                return await echo.generate(prompt, params)
            return await super().generate(prompt, params)

    recorder = Mixed(30)
    outcomes = concurrent.generate(recorder, PendingPrompts(prompts=prompts(*"abcdef")), params, batch("concurrent", 3))
    assert next(outcomes)[0].prompt_id == "p0"
    outcomes.close()
    assert recorder.in_flight == 0
    assert recorder.requests <= 4
