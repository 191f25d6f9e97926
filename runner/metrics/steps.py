"""Divides a run into steps, for curves over its course."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from runner.batching.modes import MODES
from runner.config.schema import BatchConfig
from runner.types import Completion, Outcome

_AUTO_STEP_SIZE = 16
"""Outcomes in a step where batch.size is auto."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A part of a run, for curves over the course of the run: when the part ended, and its metrics."""

    number: int
    ended_at: datetime
    metrics: Mapping[str, float]


def divide_into_steps(outcomes: Iterable[Outcome], config: BatchConfig) -> Iterator[Step]:
    """Divide a run into steps: one per static batch, and one per `batch.size` outcomes of other modes.

    No step holds outcomes of two segments, so that a resumed run adds steps and changes none.
    """
    batch_is_call = config.mode is not None and MODES[config.mode].batch_is_call
    size = _AUTO_STEP_SIZE if config.size == "auto" else config.size
    number = 0
    for _, segment in groupby(outcomes, key=lambda outcome: outcome.segment):
        previous_end: datetime | None = None
        for _, group in groupby(
            enumerate(segment), key=lambda indexed: indexed[1].batch if batch_is_call else indexed[0] // size
        ):
            step = [outcome for _, outcome in group]
            ended_at = max(outcome.timing.started_at + timedelta(seconds=outcome.timing.elapsed_s) for outcome in step)
            started_at = min(outcome.timing.started_at for outcome in step)
            wall_s = (ended_at - max(started_at, previous_end or started_at)).total_seconds()
            yield Step(number=number, ended_at=ended_at, metrics=_step_metrics(step, wall_s))
            number, previous_end = number + 1, max(ended_at, previous_end or ended_at)


def _step_metrics(step: list[Outcome], wall_s: float) -> dict[str, float]:
    """Return the metrics of a step.

    Args:
        step: its outcomes.
        wall_s: from its first start, or the end of the step before where that is later, to its last end. Requests of
            two steps overlap, but their wall times do not: together they are the time of the run.
    """
    latency_s = max(outcome.timing.elapsed_s for outcome in step)
    completions = [outcome for outcome in step if isinstance(outcome, Completion)]
    usages = [completion.usage for completion in completions if completion.usage is not None]
    metrics = {"batch/latency_s": latency_s}
    if len(usages) == len(completions):
        output_tokens = sum(usage.output_tokens for usage in usages)
        metrics["batch/output_tokens"] = float(output_tokens)
        if wall_s > 0:
            metrics["batch/output_tokens_per_s"] = output_tokens / wall_s
    first_token_s = (completion.timing.time_to_first_token_s for completion in completions)
    if (first_s := next((value for value in first_token_s if value is not None), None)) is not None:
        metrics["batch/time_to_first_token_s"] = first_s
    return metrics
