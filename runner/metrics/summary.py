"""Metrics that follow from a run's outcomes, in one pass. Holds no texts."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from runner.metrics.flight import SegmentCalls, in_flight_metrics
from runner.metrics.samples import CallSamples, call_key
from runner.types import Completion, Outcome, Timing


def summarize(
    outcomes: Iterable[tuple[Outcome, bool]], *, padded: bool, measured_s: Mapping[int, float]
) -> dict[str, float]:
    """Return the metrics that follow from the outcomes alone.

    Args:
        outcomes: the outcomes of one run in the order of the record, where those of a call are adjacent, each with
            whether a later segment superseded it. Of superseded outcomes, only time and retries are counted.
        padded: whether batches were padded and ran to their longest row, as static batches in this process are.
        measured_s: seconds of the measured loop, from the first prompt sent to the last outcome, by segment. A segment
            that is not here (its process was killed) lasted from when its first call wanted to leave to its last end.
    """
    totals, segments = _Totals(), defaultdict[int, SegmentCalls](SegmentCalls)
    for (number, _), group in groupby(outcomes, key=lambda marked: call_key(marked[0])):
        call = list(group)
        if call[0][0].timing.latency_s is not None:
            segments[number].add([outcome for outcome, _ in call])
        if counted := [outcome for outcome, is_superseded in call if not is_superseded]:
            totals.add_call(counted)
        totals.add_retries(outcome for outcome, is_superseded in call if is_superseded)
    numbers = segments.keys() | measured_s.keys()
    whole_s = {number: segment.whole_s for number, segment in segments.items()}
    duration_s = sum(max(whole_s.get(number, 0.0), measured_s.get(number, 0.0)) for number in numbers)
    metrics = totals.counts() | totals.rates(duration_s) | totals.times()
    if segments:
        metrics["overhead_s"] = max(0.0, duration_s - sum(segment.occupied_s for segment in segments.values()))
    if padded:
        return metrics | totals.padding()
    in_flight = in_flight_metrics(segments.values(), duration_s)
    if not totals.tokens_are_known:
        in_flight.pop("steady_output_tokens_per_s", None)
    return metrics | in_flight


@dataclass(slots=True, kw_only=True)
class _Totals:
    """Sums over outcomes, and samples of completed calls.

    In a padded batch, `prompt_slots` and `decode_slots` count the positions computed, padding included. `prefill_s` and
    `decode_s` are None while nothing was streamed; `attempts_are_known` is whether every last attempt has its time, and
    `tokens_are_known` whether every answer has its usage: a sum of some answers' tokens is no sum of the run's.
    """

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int | None = None
    retries: int = 0
    prompt_slots: int = 0
    prompt_tokens: int = 0
    decode_slots: int = 0
    prefill_s: float | None = None
    decode_s: float | None = None
    attempts_are_known: bool = True
    tokens_are_known: bool = True
    samples: CallSamples = field(default_factory=CallSamples)

    def add_call(self, call: list[Outcome]) -> None:
        completions = [outcome for outcome in call if isinstance(outcome, Completion)]
        self.failed += len(
            {outcome.prompt_id for outcome in call} - {completion.prompt_id for completion in completions}
        )
        self.add_retries(call)
        if completions:
            self._add_tokens(completions)
            self._add_stream(completions)
            self.samples.add_call(completions)

    def add_retries(self, call: Iterable[Outcome]) -> None:
        self.retries += sum(outcome.attempts - 1 for outcome in call if outcome.choice == 0)

    def _add_tokens(self, completions: list[Completion]) -> None:
        usages = [completion.usage for completion in completions if completion.usage is not None]
        prompts = [completion.usage for completion in completions if completion.choice == 0 and completion.usage]
        self.completed += sum(completion.choice == 0 for completion in completions)
        self.tokens_are_known &= len(usages) == len(completions)
        if not usages:
            return
        self.input_tokens += sum(usage.input_tokens for usage in prompts)
        self.cached_input_tokens += sum(usage.cached_input_tokens for usage in prompts)
        self.output_tokens += sum(usage.output_tokens for usage in usages)
        if reasoning := [usage.reasoning_tokens for usage in usages if usage.reasoning_tokens is not None]:
            self.reasoning_tokens = (self.reasoning_tokens or 0) + sum(reasoning)
        self.prompt_slots += max(usage.input_tokens for usage in usages) * len(usages)
        self.prompt_tokens += sum(usage.input_tokens for usage in usages)
        self.decode_slots += max(usage.output_tokens for usage in usages) * len(usages)

    def _add_stream(self, completions: list[Completion]) -> None:
        """Add the call's time to its first token, and from there to its last."""
        streamed = [completion for completion in completions if completion.timing.time_to_first_token_s is not None]
        if not streamed:
            return
        first = min(streamed, key=lambda completion: completion.timing.time_to_first_token_s or 0.0)
        first_s, earlier_s = first.timing.time_to_first_token_s or 0.0, _earlier_attempts_s(first.timing)
        self.attempts_are_known &= first.attempts == 1 or first.timing.last_attempt_latency_s is not None
        self.prefill_s = (self.prefill_s or 0.0) + first_s - earlier_s
        last_s = max(completion.timing.elapsed_s for completion in completions)
        self.decode_s = (self.decode_s or 0.0) + last_s - first_s

    def counts(self) -> dict[str, float]:
        counts: dict[str, float] = {
            "completed_prompts": self.completed,
            "failed_prompts": self.failed,
            "retries": self.retries,
        }
        if not self.tokens_are_known:
            return counts
        counts |= {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens}
        if self.cached_input_tokens:
            counts["cached_input_tokens"] = self.cached_input_tokens
        if self.reasoning_tokens is not None:
            counts["reasoning_tokens"] = self.reasoning_tokens
        return counts

    def rates(self, duration_s: float) -> dict[str, float]:
        if not self.completed or duration_s <= 0:
            return {"duration_s": duration_s}
        rates = {"duration_s": duration_s, "prompts_per_s": self.completed / duration_s}
        if not self.tokens_are_known:
            return rates
        return rates | {
            "output_tokens_per_s": self.output_tokens / duration_s,
            "input_tokens_per_s": self.input_tokens / duration_s,
            "total_tokens_per_s": (self.input_tokens + self.output_tokens) / duration_s,
        }

    def padding(self) -> dict[str, float]:
        ratios = {}
        if self.prompt_slots:
            ratios["prompt_padding_ratio"] = 1 - self.prompt_tokens / self.prompt_slots
        if self.decode_slots:
            ratios["tail_wait_ratio"] = 1 - self.output_tokens / self.decode_slots
        return ratios

    def times(self) -> dict[str, float]:
        times = self.samples.percentiles()
        if calls := self.samples.by_kind["latency"].calls:
            times["latency_samples"] = calls
        if self.prefill_s is not None and self.attempts_are_known:
            times["prefill_s"] = self.prefill_s
        if self.decode_s is not None:
            times["decode_s"] = self.decode_s
        return times


def _earlier_attempts_s(timing: Timing) -> float:
    """Return the time from the first attempt to the start of the last."""
    return 0.0 if timing.last_attempt_latency_s is None else timing.elapsed_s - timing.last_attempt_latency_s
