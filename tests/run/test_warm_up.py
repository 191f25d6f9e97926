"""A warm-up generates the planned first batch, until its time settles, within 5 % of what the run will take."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest

from runner import app
from runner.batching.base import PendingPrompts
from runner.config.schema import BatchMode, GenerationParams
from runner.config.waits import Waits
from runner.record.folder import RunFolder
from runner.record.prompts import PackedPrompts
from runner.run.prepare import prepare
from runner.run.warm_up import warm_up
from runner.types import Answer, Generated, Message, Prompt, Usage
from tests.conftest import Compose
from tests.factories import prompts_file, summary_of, timing


@dataclass
class TimedProvider:
    """A model in this process, on a clock of its own: calls take the seconds of `calls_s` in turn, then the last of them.

    Attributes:
        calls_s: seconds of each call; a call's last three tokens take `decode_share` of it.
        calls: the prompts and the tokens of each call.
    """

    calls_s: Sequence[float]
    decode_share: float = 0.0
    now: float = 0.0
    calls: list[tuple[list[str], int]] = field(default_factory=list)
    name: ClassVar[str] = "timed"
    default_mode: ClassVar[BatchMode] = "static"
    is_local: ClassVar[bool] = True
    price_catalog: ClassVar[str | None] = None
    supported_params: ClassVar[frozenset[str]] = frozenset()

    def validate(self, params: GenerationParams) -> None:
        """Accept all."""

    def describe(self) -> dict[str, Any]:
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release nothing."""

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        seconds = self.calls_s[min(len(self.calls), len(self.calls_s) - 1)]
        self.calls.append(([prompt.text for prompt in prompts], params.max_tokens))
        self.now += seconds
        when = timing(latency_s=seconds, first_s=seconds * (1 - self.decode_share))
        return [
            Generated(model="m", timing=when, answers=(self.answer(prompt, params.max_tokens),)) for prompt in prompts
        ]

    def answer(self, prompt: Prompt, max_tokens: int) -> Answer:
        """Return an answer of all tokens; of two to a prompt that asks to be brief."""
        tokens = 2 if prompt.text.startswith("brief") else max_tokens
        return Answer(text="", finish_reason="length", usage=Usage(input_tokens=1, output_tokens=tokens))


def warmed(
    config: Compose, provider: TimedProvider, *overrides: str, texts: Sequence[str], skipped: Sequence[str] = ()
) -> float | None:
    """Warm the provider up for a run of static batches of two; a prompt's id is its text."""
    prompts = PackedPrompts(Prompt(id=text, messages=(Message(role="user", content=text),)) for text in texts)
    options = ("provider=echo", "batch.mode=static", "batch.size=2", "generation.max_tokens=64", *overrides)
    run = prepare(config(*options), prompts, RunFolder(Path("nowhere")), Waits())
    run = replace(run, calls=replace(run.calls, provider=provider))
    return warm_up(run, PendingPrompts(prompts=prompts, skipped=frozenset(skipped)), clock=lambda: provider.now)


def numbers(count: int) -> list[str]:
    return [f"{number:04}" for number in range(count)]


def test_the_first_batch_of_the_plan_is_warmed_up_and_not_the_first_prompts_of_the_file(config: Compose):
    provider = TimedProvider([1.0])
    warmed(config, provider, "batch.warmup=1", texts=["a", "bb", "dddd", "ccc"])
    assert provider.calls == [(["dddd", "ccc"], 4)], "the longest come first; four tokens each"
    given = TimedProvider([1.0])
    warmed(config, given, "batch.order=given", "batch.warmup=1", texts=["a", "bb", "dddd", "ccc"])
    assert given.calls == [(["a", "bb"], 4)]


def test_a_resumed_run_warms_up_the_first_batch_that_is_left(config: Compose):
    provider = TimedProvider([1.0])
    warmed(config, provider, "batch.warmup=1", texts=["a", "bb", "dddd", "ccc"], skipped=["dddd", "ccc"])
    assert [texts for texts, _ in provider.calls] == [["bb", "a"]]


@pytest.mark.parametrize(("size", "prompts", "rows"), [(2, 40, 2), (2, 20, 1), (64, 64, 4), (16, 64, 4), (64, 3, 1)])
def test_a_run_of_few_batches_is_warmed_up_with_a_part_of_the_first(
    size: int, prompts: int, rows: int, config: Compose
):
    """A twentieth of all prompts, rounded up: 2 of 40, 1 of 20, 4 of 64 (3.2), 1 of 3."""
    provider = TimedProvider([1.0])
    warmed(config, provider, f"batch.size={size}", texts=numbers(prompts))
    assert len(provider.calls[0][0]) == rows


@pytest.mark.parametrize(
    ("calls_s", "calls"),
    [([9.0, 2.0, 1.0, 0.96], 4), ([1.0, 0.96], 2), ([1.0, 0.94, 0.96], 3), ([1.0, 1.04], 2)],
)
def test_it_ends_when_two_calls_in_a_row_differ_by_less_than_a_twentieth(
    config: Compose, calls_s: list[float], calls: int
):
    provider = TimedProvider(calls_s)
    assert warmed(config, provider, texts=numbers(2000)) == pytest.approx(sum(calls_s))
    assert len(provider.calls) == calls


@pytest.mark.parametrize(("batches", "calls"), [(39, 1), (40, 2), (99, 3), (100, 5)])
def test_no_call_begins_that_would_take_more_than_a_twentieth_of_the_planned_time(
    config: Compose, batches: int, calls: int
):
    """Calls take 1 and 2 s in turn. A next call is taken to last as long as the last one, and all batches likewise.

    39 batches after one call: 1 + 1 s of 0.05 x 39 = 1.95 s, no. 40 batches: 2 of 2 s, and after two calls 3 + 2 of 4 s, no:
    two calls. 99 batches: 5 of 9.9 s, a third call; then 4 + 1 of 4.95 s, no. 100 batches: 5 of 5 s, a fourth; 6 + 2 of
    10 s, a fifth; 7 + 1 of 5 s, no.
    """
    provider = TimedProvider(list(itertools.islice(itertools.cycle([1.0, 2.0]), 50)))
    warmed(config, provider, texts=numbers(2 * batches))
    assert len(provider.calls) == calls


def test_the_planned_time_counts_the_decode_steps_of_a_whole_answer(config: Compose):
    """A call of 1 s has 0.3 s of three decode steps, so that 64 tokens take 1 + 60 x 0.1 = 7 s. Twelve such calls of a
    prompt each leave 4.2 s, and a second call fits, then a third of equal time; without the steps they leave 0.6 s."""
    provider = TimedProvider([1.0, 2.0], decode_share=0.3)
    warmed(config, provider, texts=numbers(12))
    assert len(provider.calls) == 3
    short = TimedProvider([1.0, 2.0], decode_share=0.3)
    warmed(config, short, "generation.max_tokens=4", texts=numbers(12))
    assert len(short.calls) == 1


def test_a_row_that_ended_early_makes_no_step_longer(config: Compose):
    """Twenty batches, so that the limit is one batch's time. Calls of 1 and 1.5 s in turn, 24 % of each for three steps.

    64 tokens take 1 + 60 x 0.08 = 5.8 s by the first kind, 8.7 s by the second. After five calls, 6 s, a sixth would pass
    5.8 s. The two tokens of the other row would make steps of 0.24 s, and room for thirteen calls.
    """
    texts = [f"{kind}{number:02}" for number in range(20) for kind in ("brief", "whole")]
    provider = TimedProvider(list(itertools.islice(itertools.cycle([1.0, 1.5]), 50)), decode_share=0.24)
    warmed(config, provider, "batch.order=given", texts=texts)
    assert provider.calls[0][0] == ["brief00", "whole00"]
    assert len(provider.calls) == 5


def test_a_time_that_never_settles_ends_the_warm_up_after_twenty_calls(config: Compose):
    provider = TimedProvider(list(itertools.islice(itertools.cycle([1.0, 2.0]), 50)))
    assert warmed(config, provider, texts=numbers(8000)) == 30.0


def test_a_batch_that_raises_is_not_tried_again(config: Compose):
    class Broken(TimedProvider):
        def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
            super().generate_batch(prompts, params)
            raise LookupError("a token outside of the embedding")

    provider = Broken(list(itertools.islice(itertools.cycle([1.0, 2.0]), 50)))
    warmed(config, provider, texts=numbers(8000))
    assert len(provider.calls) == 1


def test_a_number_is_that_many_batches(config: Compose):
    provider = TimedProvider([1.0])
    assert warmed(config, provider, "batch.warmup=3", texts=numbers(4)) == 3.0
    assert warmed(config, provider, "batch.warmup=0", texts=numbers(4)) is None
    assert len(provider.calls) == 3


def test_a_service_is_not_warmed_up_because_it_bills(config: Compose):
    class Service(TimedProvider):
        is_local = False

    service = Service([1.0])
    assert warmed(config, service, texts=numbers(4)) is None
    assert not service.calls


@pytest.mark.parametrize("mode", ["static", "continuous", "concurrent"])
def test_every_mode_is_warmed_up_and_the_run_has_only_its_own_outcomes(
    mode: str, config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        app.run(
            config("provider=echo", f"batch.mode={mode}", "batch.size=3", *prompts_file(tmp_path, 7)), tmp_path / "r"
        )
    assert summary_of(tmp_path / "r").metrics["warmup_s"] > 0
    assert len(list(RunFolder(tmp_path / "r").outcomes.read_all())) == 7
    assert "1 x 1 of the first prompts" in caplog.text
