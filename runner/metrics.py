"""Metrics of a run, computed from its outcomes. A metric that does not exist for a run is absent."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

import numpy as np

from runner.batching.modes import MODES
from runner.config.schema import BatchConfig
from runner.types import Completion, Outcome, Timing

_LATENCY = "of calls with an answer, from the first attempt to the last token; in a static batch its batch's"
_TTFT = "of calls with an answer, from the first attempt to the first new token; absent where nothing is streamed"
_ITL = "per call with an answer (`latency_s` - `time_to_first_token_s`) / (output tokens of its longest answer - 1)"

METRICS: Mapping[str, str] = {
    "completed_prompts": "prompts with an answer",
    "failed_prompts": "prompts without an answer whose last attempt ended in an error",
    "input_tokens": "sum over completed prompts of the prompt's tokens without padding, once for n answers",
    "output_tokens": "sum over all answers; the first end-of-sequence token counts and ends an answer",
    "duration_s": "from the first prompt sent to the last outcome, summed over the processes of a resumed run",
    "load_s": "loading the model, or opening the client; measured apart from `duration_s`",
    "output_tokens_per_s": "`output_tokens` / `duration_s`",
    "prompts_per_s": "`completed_prompts` / `duration_s`",
    "latency_samples": "calls with an answer: the samples of every latency percentile; rows of a static batch are one",
    **{f"latency_p{rank}_s": _LATENCY for rank in (50, 90, 95, 99)},
    **{f"time_to_first_token_p{rank}_s": _TTFT for rank in (50, 90, 95, 99)},
    **{f"inter_token_latency_p{rank}_s": _ITL for rank in (50, 99)},
    "retries": "sum over prompts of `attempts` - 1, that of superseded outcomes included",
    "prompt_padding_ratio": "1 - input tokens / (widest prompt of the batch x rows), summed over padded batches",
    "tail_wait_ratio": "1 - output tokens / (longest answer of the batch x rows), summed over padded batches",
    "cost_usd": "sum over answers of tokens x price, by kind of token; absent where the price is not known",
    "overhead_s": "`duration_s` minus the time during which at least one call was in flight",
    "warmup_s": "generating the first batches unmeasured, before `duration_s` begins; local models only",
    "cpu_s": "CPU seconds of this process, all threads, while it generated; of a resumed run, of its last process",
    "other_cpu_share": "share of the usable CPUs' time that other processes took meanwhile, this run's own left out",
    "child_cpu_share": "share that processes took which this one started: the one that publishes to MLflow",
    "steal_share": "share of the usable CPUs' time that the hypervisor gave to other machines meanwhile",
    "peak_memory_mb": "largest resident memory of the process while it generated, in MiB",
    "peak_gpu_memory_mb": "largest memory of tensors on the GPU while the run generated, by its allocator, in MiB",
}
"""The definition of every metric, in the order in which metrics are shown; fields and metrics stand in backticks."""
NAMES = tuple(METRICS)

_UNITS = {
    "_ratio": "{:.1%}",
    "_share": "{:.1%}",
    "_usd": "${:,.4f}",
    "_mb": "{:,.0f} MiB",
    "_per_s": "{:,.1f} /s",
    "_s": "{:,.3f} s",
}
_AUTO_STEP_SIZE = 16
"""Outcomes in a step where batch.size is auto."""
_MIN_SAMPLES = {50: 1, 90: 10, 95: 20, 99: 100}
"""Calls that a percentile needs, by rank: of fewer, a high percentile is only the largest."""


def summarize(
    outcomes: Iterable[tuple[Outcome, bool]], *, padded: bool, measured_s: Mapping[int, float]
) -> dict[str, float]:
    """Return the metrics that follow from the outcomes alone.

    Args:
        outcomes: the outcomes of one run in the order of the record, where those of a call are adjacent, each with
            whether a later segment superseded it. Of superseded outcomes, only time and retries are counted.
        padded: whether batches were padded and ran to their longest row, as static batches in this process are.
        measured_s: seconds of the measured loop, from the first prompt sent to the last outcome, by segment. A segment
            that is not here (its process was killed) lasted from its first call's start to its last call's end.
    """
    totals, spans = _Totals(), defaultdict[int, _Span](_Span)
    for (segment, _), group in groupby(outcomes, key=lambda marked: _call_key(marked[0])):
        call = list(group)
        spans[segment].add([outcome for outcome, _ in call])
        if counted := [outcome for outcome, is_superseded in call if not is_superseded]:
            totals.add_call(counted)
        totals.add_retries(outcome for outcome, is_superseded in call if is_superseded)
    segments = spans.keys() | measured_s.keys()
    duration_s = sum(max(spans.get(segment, _Span()).whole_s, measured_s.get(segment, 0.0)) for segment in segments)
    metrics = totals.counts() | totals.rates(duration_s) | totals.percentiles()
    if padded:
        metrics |= totals.padding()
    if spans:
        metrics["overhead_s"] = max(0.0, duration_s - sum(span.covered_s for span in spans.values()))
    return metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A part of a run, for curves over the course of the run: when the part ended, and its metrics."""

    number: int
    ended_at: datetime
    metrics: Mapping[str, float]


def steps(outcomes: Iterable[Outcome], config: BatchConfig) -> Iterator[Step]:
    """Divide a run into steps: one per static batch, and one per `batch.size` outcomes of other modes.

    No step holds outcomes of two segments, so that a resumed run adds steps and changes none.
    """
    batch_is_call = config.mode is not None and MODES[config.mode].batch_is_call
    size = _AUTO_STEP_SIZE if config.size == "auto" else config.size
    number = 0
    for _, segment in groupby(outcomes, key=lambda outcome: outcome.segment):
        for _, group in groupby(
            enumerate(segment), key=lambda indexed: indexed[1].batch if batch_is_call else indexed[0] // size
        ):
            step = [outcome for _, outcome in group]
            ended_at = max(outcome.timing.started_at + timedelta(seconds=outcome.timing.latency_s) for outcome in step)
            yield Step(number=number, ended_at=ended_at, metrics=_step_metrics(step))
            number += 1


def _step_metrics(step: list[Outcome]) -> dict[str, float]:
    latency_s = max(outcome.timing.latency_s for outcome in step)
    completions = [outcome for outcome in step if isinstance(outcome, Completion)]
    output_tokens = sum(completion.usage.output_tokens for completion in completions)
    metrics = {"batch/latency_s": latency_s, "batch/output_tokens": float(output_tokens)}
    if latency_s > 0:
        metrics["batch/output_tokens_per_s"] = output_tokens / latency_s
    first_token_s = (completion.timing.time_to_first_token_s for completion in completions)
    if (first_s := next((value for value in first_token_s if value is not None), None)) is not None:
        metrics["batch/time_to_first_token_s"] = first_s
    return metrics


def _call_key(outcome: Outcome) -> tuple[int, int]:
    """Return what the outcomes of one call have in common."""
    return outcome.segment, outcome.batch


def in_order(values: Mapping[str, float]) -> dict[str, float]:
    """Return metrics in the order of NAMES.

    Raises:
        ValueError: a metric is not in NAMES.
    """
    if unknown := values.keys() - set(NAMES):
        raise ValueError(f"no definition in METRICS: {', '.join(sorted(unknown))}")
    return {name: values[name] for name in NAMES if name in values}


def _no_samples() -> "array[float]":
    return array("d")


@dataclass(slots=True, kw_only=True)
class _Totals:
    """Sums over outcomes, and samples of 8 bytes each; holds no texts.

    In a padded batch, `prompt_slots` and `decode_slots` count the positions computed, padding included.
    """

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    retries: int = 0
    prompt_slots: int = 0
    prompt_tokens: int = 0
    decode_slots: int = 0
    latency: "array[float]" = field(default_factory=_no_samples)
    first_token: "array[float]" = field(default_factory=_no_samples)
    inter_token: "array[float]" = field(default_factory=_no_samples)

    def add_call(self, call: list[Outcome]) -> None:
        completions = [outcome for outcome in call if isinstance(outcome, Completion)]
        self.failed += len(
            {outcome.prompt_id for outcome in call} - {completion.prompt_id for completion in completions}
        )
        self._add_completions(completions)
        self.add_retries(call)

    def add_retries(self, call: Iterable[Outcome]) -> None:
        self.retries += sum(outcome.attempts - 1 for outcome in call if outcome.choice == 0)

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
        for timing in dict.fromkeys(completion.timing for completion in completions):  # rows of one call share it
            self._add_timing(timing, steps)

    def _add_timing(self, timing: Timing, steps: int) -> None:
        self.latency.append(timing.latency_s)
        if timing.time_to_first_token_s is not None:
            self.first_token.append(timing.time_to_first_token_s)
            if steps > 1:
                self.inter_token.append((timing.latency_s - timing.time_to_first_token_s) / (steps - 1))

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
        samples = {"latency_samples": float(len(self.latency))} if self.latency else {}
        return {
            **samples,
            **_percentiles("latency", self.latency, (50, 90, 95, 99)),
            **_percentiles("time_to_first_token", self.first_token, (50, 90, 95, 99)),
            **_percentiles("inter_token_latency", self.inter_token, (50, 99)),
        }


def _percentiles(name: str, samples: "array[float]", ranks: tuple[int, ...]) -> Mapping[str, float]:
    """Interpolate linearly between the closest ranks (numpy's default, Hyndman and Fan's type 7)."""
    return {
        f"{name}_p{rank}_s": float(np.percentile(samples, rank)) for rank in ranks if len(samples) >= _MIN_SAMPLES[rank]
    }


@dataclass(slots=True)
class _Span:
    """When the calls of one segment started and ended, in seconds of the wall clock."""

    starts: "array[float]" = field(default_factory=_no_samples)
    ends: "array[float]" = field(default_factory=_no_samples)

    def add(self, call: list[Outcome]) -> None:
        start = call[0].timing.started_at.timestamp()
        self.starts.append(start)
        self.ends.append(start + max(outcome.timing.latency_s for outcome in call))

    @property
    def whole_s(self) -> float:
        """From the first start to the last end."""
        return max(self.ends) - min(self.starts) if self.ends else 0.0

    @property
    def covered_s(self) -> float:
        """For how long at least one call was in flight: the length of the union of the calls' intervals."""
        order = np.argsort(self.starts)
        starts, ends = np.asarray(self.starts)[order], np.asarray(self.ends)[order]
        last_ends = np.maximum.accumulate(ends)
        gaps_s = np.maximum(0.0, starts[1:] - last_ends[:-1]).sum()
        return float(last_ends[-1] - starts[0] - gaps_s)


def format_metric(name: str, value: float) -> str:
    """Return a metric's value with the unit that its name ends with."""
    for suffix, template in _UNITS.items():
        if name.endswith(suffix):
            return template.format(value)
    return f"{value:,.0f}"
