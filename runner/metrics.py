"""From outcomes to metrics: sums over the record. A metric that does not exist for a run is absent."""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby, islice

import numpy as np

from runner.batching.modes import MODES
from runner.config.schema import BatchConfig
from runner.types import Completion, Outcome

_LATENCY = "of completed prompts, from the first attempt to the last token; in a static batch its batch's"
_TTFT = "of completed prompts, from the first attempt to the first new token; absent where nothing is streamed"
_ITL = "per completed prompt (`latency_s` - `time_to_first_token_s`) / (most output tokens of its call - 1)"

METRICS: Mapping[str, str] = {
    "completed_prompts": "prompts with an answer",
    "failed_prompts": "prompts without an answer whose last attempt ended in an error",
    "input_tokens": "sum over completed prompts of the prompt's own tokens, never a padded width; once for n answers",
    "output_tokens": "sum over all answers; the first end-of-sequence token counts and ends an answer",
    "duration_s": "from the first prompt sent to the last outcome, summed over the processes of a resumed run",
    "load_s": "loading the model, or opening the client; measured apart from `duration_s`",
    "output_tokens_per_s": "`output_tokens` / `duration_s`",
    "prompts_per_s": "`completed_prompts` / `duration_s`",
    **{f"latency_p{rank}_s": _LATENCY for rank in (50, 90, 95, 99)},
    **{f"time_to_first_token_p{rank}_s": _TTFT for rank in (50, 90, 95, 99)},
    **{f"inter_token_latency_p{rank}_s": _ITL for rank in (50, 99)},
    "retries": "sum over prompts of `attempts` - 1, those that a resumed run tried again included",
    "prompt_padding_ratio": "1 - input tokens / (widest prompt of the batch x rows), summed over padded batches",
    "tail_wait_ratio": "1 - output tokens / (longest answer of the batch x rows), summed over padded batches",
    "cost_usd": "sum over answers of tokens x price, by kind of token; absent where the price is not known",
    "overhead_s": "`duration_s` less the time in which at least one call was under way",
    "peak_memory_mb": "largest resident memory of the process while it generated, in MiB",
}
"""Every metric of the contract in a reader's order, with its definition; fields and metrics stand in backticks."""
NAMES = tuple(METRICS)

_UNITS = {
    "_ratio": "{:.1%}",
    "_usd": "${:,.4f}",
    "_mb": "{:,.0f} MiB",
    "_per_s": "{:,.1f} /s",
    "_s": "{:,.3f} s",
}
_STEP = 16
"""Outcomes in a step where the batch size is found by the run itself."""
_SAMPLES_NEEDED = {50: 1, 90: 10, 95: 20, 99: 100}
"""A percentile is stated from this many samples on: fewer would only repeat the largest."""


def summarize(
    outcomes: Iterable[tuple[Outcome, bool]], *, padded: bool, measured_s: Mapping[int, float]
) -> dict[str, float]:
    """Return the metrics that follow from the outcomes alone.

    Args:
        outcomes: those of one run in the order of the record, a call's side by side, each with whether a later segment
            superseded it. Superseded outcomes are not counted, but their time and their attempts were spent.
        padded: whether batches were padded and ran to their longest row, as static batches in this process are.
        measured_s: seconds of the measured loop, from the first prompt sent to the last outcome, by segment. Of a
            segment that is not here (its process was killed) they are taken from its first start to its last end.
    """
    totals, spans = _Totals(), dict[int, _Span]()
    for (segment, _), group in groupby(outcomes, key=lambda marked: _call(marked[0])):
        call = list(group)
        spans.setdefault(segment, _Span()).add([outcome for outcome, _ in call])
        if counted := [outcome for outcome, is_superseded in call if not is_superseded]:
            totals.add_batch(counted)
        if superseded := [outcome for outcome, is_superseded in call if is_superseded]:
            totals.add_retries(superseded)
    segments = spans.keys() | measured_s.keys()
    duration_s = sum(max(_whole_s(spans.get(segment)), measured_s.get(segment, 0.0)) for segment in segments)
    metrics = totals.counts() | totals.rates(duration_s) | totals.percentiles()
    if padded:
        metrics |= totals.padding()
    if spans:
        metrics["overhead_s"] = max(0.0, duration_s - sum(span.covered_s for span in spans.values()))
    return metrics


def batch_metrics(batch: list[Outcome]) -> dict[str, float]:
    """Return the metrics of one step, for curves over the course of a run."""
    latency_s = max(outcome.timing.latency_s for outcome in batch)
    completions = [outcome for outcome in batch if isinstance(outcome, Completion)]
    output_tokens = sum(completion.usage.output_tokens for completion in completions)
    metrics = {"batch/latency_s": latency_s, "batch/output_tokens": float(output_tokens)}
    if latency_s > 0:
        metrics["batch/output_tokens_per_s"] = output_tokens / latency_s
    if first := [c.timing.time_to_first_token_s for c in completions if c.timing.time_to_first_token_s is not None]:
        metrics["batch/time_to_first_token_s"] = first[0]
    return metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stretch of a run: when it ended, and its own metrics, for curves over the course of the run."""

    number: int
    ended_at: datetime
    metrics: Mapping[str, float]


def steps(outcomes: Iterable[Outcome], config: BatchConfig) -> Iterator[Step]:
    """Cut a run into steps: a static batch is one, and so are `batch.size` outcomes of other modes.

    Segments are cut each by itself. With all outcomes that ever were, a step is thus the same whenever it is cut.
    """
    segments = groupby(outcomes, key=lambda outcome: outcome.segment)
    stretches = (stretch for _, segment in segments for stretch in _stretches(segment, config))
    for number, stretch in enumerate(stretches):
        ended_at = max(outcome.timing.started_at + timedelta(seconds=outcome.timing.latency_s) for outcome in stretch)
        yield Step(number=number, ended_at=ended_at, metrics=batch_metrics(stretch))


def step_size(config: BatchConfig) -> int:
    """Return how many outcomes a step has where batches do not say it."""
    return _STEP if config.size == "auto" else config.size


def _stretches(outcomes: Iterator[Outcome], config: BatchConfig) -> Iterator[list[Outcome]]:
    if config.mode is not None and MODES[config.mode].batch_is_call:
        return (list(batch) for _, batch in groupby(outcomes, key=_call))
    return iter(lambda: list(islice(outcomes, step_size(config))), [])


def _call(outcome: Outcome) -> tuple[int, int]:
    """Return what the outcomes of one call have in common."""
    return outcome.segment, outcome.batch


def in_order(values: Mapping[str, float]) -> dict[str, float]:
    """Return metrics in the order of the contract, which is the order of a reader's questions.

    Raises:
        ValueError: one is not in the contract.
    """
    if unknown := values.keys() - set(NAMES):
        raise ValueError(f"not among the metrics of the contract: {', '.join(sorted(unknown))}")
    return {name: values[name] for name in NAMES if name in values}


def _numbers() -> "array[float]":
    return array("d")


@dataclass(slots=True, kw_only=True)
class _Totals:
    """Running sums in bounded memory: 8 bytes a number, no texts."""

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    retries: int = 0
    prompt_slots: int = 0
    prompt_tokens: int = 0
    decode_slots: int = 0
    latency: "array[float]" = field(default_factory=_numbers)
    first_token: "array[float]" = field(default_factory=_numbers)
    inter_token: "array[float]" = field(default_factory=_numbers)

    def add_batch(self, batch: list[Outcome]) -> None:
        completions = [outcome for outcome in batch if isinstance(outcome, Completion)]
        self.failed += len({outcome.prompt_id for outcome in batch} - {done.prompt_id for done in completions})
        self._add_completions(completions)
        self.add_retries(batch)

    def add_retries(self, batch: list[Outcome]) -> None:
        self.retries += sum(outcome.attempts - 1 for outcome in batch if outcome.choice == 0)

    def _add_completions(self, completions: list[Completion]) -> None:
        if not completions:
            return
        prompts = [completion for completion in completions if completion.choice == 0]
        width = max(completion.usage.input_tokens for completion in completions)
        steps = max(completion.usage.output_tokens for completion in completions)
        self.completed += len(prompts)
        self.input_tokens += sum(completion.usage.input_tokens for completion in prompts)
        self.output_tokens += sum(completion.usage.output_tokens for completion in completions)
        self.prompt_slots += width * len(completions)
        self.prompt_tokens += sum(completion.usage.input_tokens for completion in completions)
        self.decode_slots += steps * len(completions)
        for completion in prompts:
            self._add_timing(completion, steps)

    def _add_timing(self, completion: Completion, steps: int) -> None:
        latency, first = completion.timing.latency_s, completion.timing.time_to_first_token_s
        self.latency.append(latency)
        if first is not None:
            self.first_token.append(first)
            if steps > 1:
                self.inter_token.append((latency - first) / (steps - 1))

    def counts(self) -> dict[str, float]:
        return {
            "completed_prompts": self.completed,
            "failed_prompts": self.failed,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "retries": self.retries,
        }

    def rates(self, duration_s: float) -> dict[str, float]:
        rates: dict[str, float] = {"duration_s": duration_s}
        if self.completed and duration_s > 0:
            rates["output_tokens_per_s"] = self.output_tokens / duration_s
            rates["prompts_per_s"] = self.completed / duration_s
        return rates

    def padding(self) -> dict[str, float]:
        ratios = {}
        if self.prompt_slots:
            ratios["prompt_padding_ratio"] = 1 - self.prompt_tokens / self.prompt_slots
        if self.decode_slots:
            ratios["tail_wait_ratio"] = 1 - self.output_tokens / self.decode_slots
        return ratios

    def percentiles(self) -> dict[str, float]:
        return {
            **_percentiles("latency", self.latency, (50, 90, 95, 99)),
            **_percentiles("time_to_first_token", self.first_token, (50, 90, 95, 99)),
            **_percentiles("inter_token_latency", self.inter_token, (50, 99)),
        }


def _percentiles(name: str, samples: "array[float]", ranks: tuple[int, ...]) -> Mapping[str, float]:
    """Linear interpolation between the closest ranks (numpy's default, Hyndman and Fan's type 7)."""
    return {
        f"{name}_p{rank}_s": float(np.percentile(samples, rank))
        for rank in ranks
        if len(samples) >= _SAMPLES_NEEDED[rank]
    }


def _whole_s(span: "_Span | None") -> float:
    return span.whole_s if span else 0.0


@dataclass(slots=True)
class _Span:
    """When the calls of one segment began and ended, in seconds of the wall clock."""

    starts: "array[float]" = field(default_factory=_numbers)
    ends: "array[float]" = field(default_factory=_numbers)

    def add(self, call: list[Outcome]) -> None:
        start = call[0].timing.started_at.timestamp()
        self.starts.append(start)
        self.ends.append(start + max(outcome.timing.latency_s for outcome in call))

    @property
    def whole_s(self) -> float:
        return max(self.ends) - min(self.starts)

    @property
    def covered_s(self) -> float:
        """How long at least one call was under way: the length of the union of the intervals."""
        order = np.argsort(self.starts)
        start, end = np.asarray(self.starts)[order], np.asarray(self.ends)[order]
        reach = np.maximum.accumulate(end)
        gaps = np.maximum(0.0, start[1:] - reach[:-1]).sum()
        return float(reach[-1] - start[0] - gaps)


def format_metric(name: str, value: float) -> str:
    """Return a metric with its unit, which its name states."""
    for suffix, form in _UNITS.items():
        if name.endswith(suffix):
            return form.format(value)
    return f"{value:,.0f}"
