"""Prompts and outcomes for tests, runs of a mode or of a whole configuration without a record, and what a record has."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runner.batching.base import PendingPrompts
from runner.batching.modes import MODES
from runner.config.schema import BatchConfig, GenerationParams, RunConfig
from runner.config.waits import Waits
from runner.dispatch.stop import Stopped
from runner.record.folder import RunFolder
from runner.record.manifest import Summary
from runner.run.prepare import Calls, prepare_calls
from runner.types import Answer, Completion, ErrorInfo, Failure, Message, Outcome, Prompt, Timing, Usage

START = datetime(2026, 1, 1, tzinfo=UTC)
DEAR = "model.price={input_usd_per_million: 1000, output_usd_per_million: 1000}"
"""A tenth of a cent a token."""
_QUESTIONS = (
    "Hi", "What is the capital of France?", "Count from one to five, in words.", "Name three colours of the rainbow.",
    "Why is the sky blue?", "Write a line about a cat that waits for rain.", "Yes or no?", "Shorten: it was very cold, so we went.",
)  # fmt: skip


def outcomes_of(
    provider: object, prompts: Sequence[Prompt], params: GenerationParams, batch: BatchConfig
) -> list[Outcome]:
    """Return the outcomes that a mode yields for all prompts."""
    assert batch.mode is not None
    calls = MODES[batch.mode].generate(provider, PendingPrompts(prompts=prompts), params, batch)
    return [outcome for call in calls for outcome in call]


def generate(
    config: RunConfig,
    prompts: Sequence[Prompt],
    *,
    waits: Waits | None = None,
    before: Callable[[Calls], object] = lambda _: None,
) -> list[Outcome]:
    """Generate as a run does, without a record; raise the reason if the run was stopped.

    `before` is called with the run's calls before the first request is sent.
    """
    calls = prepare_calls(config, waits or Waits())
    before(calls)
    outcomes = generate_until_stopped(calls, config, prompts)
    if calls.stop.reason is not None:
        raise calls.stop.reason
    return outcomes


def generate_until_stopped(calls: Calls, config: RunConfig, prompts: Sequence[Prompt]) -> list[Outcome]:
    """Generate as a run does, without a record; return the outcomes until the end, or until the run was stopped."""
    pending = PendingPrompts(prompts=prompts, should_stop=lambda: calls.stop.is_set)
    outcomes: list[Outcome] = []
    with calls.callee, suppress(Stopped):
        for call in calls.mode.generate(calls.callee, pending, config.params(), config.batch):
            outcomes.extend(call)
    return outcomes


def timing(start_s: float = 0.0, latency_s: float = 1.0, first_s: float | None = 0.5) -> Timing:
    return Timing(started_at=START + timedelta(seconds=start_s), latency_s=latency_s, time_to_first_token_s=first_s)


def completion(prompt_id: str, tokens_in: int = 1, tokens_out: int = 1, *, batch: int = 0, choice: int = 0, text: str = "",
               attempts: int = 1, when: Timing | None = None) -> Completion:  # fmt: skip
    return Completion(
        prompt_id=prompt_id, text=text, finish_reason="stop", model="m", batch=batch, choice=choice, attempts=attempts,
        usage=Usage(input_tokens=tokens_in, output_tokens=tokens_out), timing=when or timing(),
    )  # fmt: skip


def with_ids(outcome: Completion, *token_ids: int) -> Completion:
    """Return the completion as of a provider that has its tokens."""
    usage = replace(usage_of(outcome), output_tokens=len(token_ids))
    return replace(outcome, token_ids=token_ids, usage=usage)


def usage_of(answer: Answer | Completion) -> Usage:
    """Return the usage of an answer that must have one."""
    assert answer.usage is not None
    return answer.usage


def failure(prompt_id: str, *, batch: int = 0, message: str = "no", when: Timing | None = None) -> Failure:
    error = ErrorInfo(type="Refused", message=message, retryable=False)
    return Failure(prompt_id=prompt_id, error=error, timing=when or timing(), model="m", batch=batch)


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(id=f"p{i}", messages=(Message(role="user", content=text),)) for i, text in enumerate(texts)]


def numbered(count: int) -> list[Prompt]:
    """Return prompts whose texts are their numbers."""
    return prompts(*map(str, range(count)))


def prompts_file(folder: Path, count: int) -> tuple[str, str]:
    """Write a file of prompts, and return the overrides that read it."""
    path = folder / "prompts.txt"
    path.write_text("".join(f"prompt number {number}\n" for number in range(count)))
    return "prompts=file", f"prompts.path={path}"


def questions_file(folder: Path) -> tuple[str, str]:
    """Write a file of eight short questions for a real model, and return the overrides that read it.

    The demo prompts have 100 tokens on average, whose pass through the model takes most of the time of a small run.
    """
    path = folder / "questions.txt"
    path.write_text("".join(f"{question}\n" for question in _QUESTIONS))
    return "prompts=file", f"prompts.path={path}"


def summary_of(run: Path) -> Summary:
    """Return the summary of a run's folder, which must have one."""
    summary = RunFolder(run).read_summary()
    assert summary is not None
    return summary


def completions(outcomes: Iterable[Outcome]) -> dict[tuple[str, int], Completion]:
    """Return the completions by prompt id and choice."""
    return {(outcome.prompt_id, outcome.choice): outcome for outcome in outcomes if isinstance(outcome, Completion)}


def not_superseded(outcomes: Iterable[Outcome]) -> list[tuple[Outcome, bool]]:
    """Return the outcomes as `metrics.summarize` takes them, none of them superseded by a later segment."""
    return [(outcome, False) for outcome in outcomes]
