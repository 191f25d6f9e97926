"""What MLflow gets of a run's outcomes, read in one pass and in bounded memory: curves, a table, and sampled traces."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from runner.config.schema import BatchConfig
from runner.metrics.steps import Step, divide_into_steps
from runner.record.folder import RunFolder
from runner.record.prompts import PackedPrompts
from runner.tracking.traces import MAX_SAMPLED_TRACES, retries_traced, trace_name
from runner.types import Completion, Outcome, Prompt

_MAX_TABLE_PROMPTS = 1000
"""Prompts in the outputs table: what the MLflow UI shows fluently. outcomes.jsonl has all."""
_MAX_STEPS = 2000
"""Points of a curve."""

T = TypeVar("T")


class Thinned(Generic[T]):
    """Keeps items of a stream of unknown length, evenly spread: more than half of `max_items` once there are so many.

    The interval between kept items doubles whenever there are too many. What is kept of a longer stream is thus among
    what was kept of its beginning.
    """

    def __init__(self, max_items: int) -> None:
        self.items: list[T] = []
        self._max_items, self._interval, self._count = max_items, 1, 0

    def add(self, item: T) -> None:
        """Take the stream's next item."""
        if self._count % self._interval == 0:
            self.items.append(item)
        self._count += 1
        if len(self.items) > self._max_items:
            self.items = self.items[::2]
            self._interval *= 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDigest:
    """What is kept of a run's outcomes.

    Attributes:
        steps: of the curves over the course of the run, at most 2,000.
        ended_at: the last step's end; None of a run without outcomes.
        table: a row for each answer to the set's first 1,000 prompts, in the set's order: the same in all its runs.
        untraced: outcomes of the sample that have no trace yet.
    """

    steps: Sequence[Step]
    ended_at: datetime | None
    table: Sequence[Mapping[str, Any]]
    untraced: Sequence[Outcome]


def read_digest(folder: RunFolder, prompts: PackedPrompts, batch: BatchConfig, traced: Set[str]) -> RunDigest:
    """Read a run's outcomes once.

    Args:
        folder: the run's.
        prompts: the run's.
        batch: what a step is.
        traced: names of the outcomes of the sample that have a trace.

    Raises:
        JournalError: a line is not an outcome.
    """
    first_prompts = {prompt.id: (position, prompt) for position, prompt in enumerate(prompts[:_MAX_TABLE_PROMPTS])}
    table_outcomes: list[Outcome] = []
    retried: dict[str, Outcome] = {}
    sample, steps = Thinned[Outcome](2 * MAX_SAMPLED_TRACES - 1), Thinned[Step](_MAX_STEPS)
    ended_at: datetime | None = None

    def watched() -> Iterator[Outcome]:
        for outcome, is_superseded in folder.outcomes.read_marked():
            if not is_superseded:
                sample.add(outcome)
                if outcome.prompt_id in first_prompts:
                    table_outcomes.append(outcome)
                if retries_traced(outcome, traced):
                    retried[trace_name(outcome)] = outcome
            yield outcome

    for step in divide_into_steps(watched(), batch):
        steps.add(step)
        ended_at = max(ended_at or step.ended_at, step.ended_at)
    table_outcomes.sort(key=lambda outcome: (first_prompts[outcome.prompt_id][0], outcome.choice))
    return RunDigest(
        steps=steps.items,
        ended_at=ended_at,
        table=[_table_row(outcome, first_prompts[outcome.prompt_id][1]) for outcome in table_outcomes],
        untraced=_untraced(sample.items, retried, traced),
    )


def _untraced(sample: Sequence[Outcome], retried: Mapping[str, Outcome], traced: Set[str]) -> list[Outcome]:
    """Return what was retried since it was traced, and as much of the sample as there is room for."""
    count = min(MAX_SAMPLED_TRACES, len(sample))
    spread = {trace_name(outcome): outcome for outcome in (sample[i * len(sample) // count] for i in range(count))}
    untraced = [outcome for name, outcome in spread.items() if name not in traced and name not in retried]
    return [*retried.values(), *untraced[: max(0, MAX_SAMPLED_TRACES - len(traced))]]


def _table_row(outcome: Outcome, prompt: Prompt) -> dict[str, Any]:
    completion = outcome if isinstance(outcome, Completion) else None
    usage = completion and completion.usage
    return {
        "prompt_id": outcome.prompt_id,
        "choice": outcome.choice,
        "prompt": prompt.text,
        "text": completion.text if completion else None,
        "finish_reason": completion.finish_reason if completion else None,
        "input_tokens": usage and usage.input_tokens,
        "output_tokens": usage and usage.output_tokens,
        "latency_s": outcome.timing.latency_s,
        "batch": outcome.batch,
        "error": None if isinstance(outcome, Completion) else f"{outcome.error.type}: {outcome.error.message}",
    }
