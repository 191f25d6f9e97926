"""Outcomes by hand, for tests that count; and the outcomes of a mode in one list."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from runner.batching.modes import MODES
from runner.batching.work import Work
from runner.config import BatchConfig, GenerationParams
from runner.records import Completion, ErrorInfo, Failure, Outcome, Prompt, Timing, Usage

START = datetime(2026, 1, 1, tzinfo=UTC)


def generated(calls: Any, prompts: Sequence[Prompt], params: GenerationParams, batch: BatchConfig) -> list[Outcome]:
    """Have a mode generate all prompts, and return what became of them."""
    assert batch.mode is not None
    return [outcome for call in MODES[batch.mode](calls, Work(prompts=prompts), params, batch) for outcome in call]


def timing(start_s: float = 0.0, latency_s: float = 1.0, first_s: float | None = 0.5) -> Timing:
    return Timing(started_at=START + timedelta(seconds=start_s), latency_s=latency_s, time_to_first_token_s=first_s)


def completion(prompt_id: str, tokens_in: int = 1, tokens_out: int = 1, *, batch: int = 0, choice: int = 0, text: str = "",
               attempts: int = 1, when: Timing | None = None) -> Completion:  # fmt: skip
    return Completion(
        prompt_id=prompt_id, text=text, finish_reason="stop", model="m", batch=batch, choice=choice, attempts=attempts,
        usage=Usage(input_tokens=tokens_in, output_tokens=tokens_out), timing=when or timing(),
    )  # fmt: skip


def failure(prompt_id: str, *, batch: int = 0, message: str = "no", when: Timing | None = None) -> Failure:
    error = ErrorInfo(type="Refused", message=message, retryable=False)
    return Failure(prompt_id=prompt_id, error=error, timing=when or timing(), model="m", batch=batch)
