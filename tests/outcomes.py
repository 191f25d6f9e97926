"""Outcomes by hand, for tests that count."""

from datetime import UTC, datetime, timedelta

from runner.records import Completion, ErrorInfo, Failure, Timing, Usage

START = datetime(2026, 1, 1, tzinfo=UTC)


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
