"""What a batch mode is, and the prompts that it generates for."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any, Generic, TypeVar

from runner.batching.job_context import JobContext
from runner.config.schema import BatchConfig, BatchMode, GenerationParams
from runner.types import Completion, Failure, Generated, Outcome, Prompt

T = TypeVar("T")
P = TypeVar("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingPrompts:
    """The prompts of a run. Batches and their numbers follow from all prompts, the skipped ones included.

    Attributes:
        prompts: all prompts of the run.
        skipped: ids of prompts that are not generated, because an earlier process of the run did.
        model_id: the model that a failure is recorded for.
        segment: number of this process within the run; recorded in every outcome.
        should_stop: whether no further prompt is to be sent.
        on_outcomes: called with each call's outcomes before a further prompt is sent; may stop the run.
        jobs: the run's batch jobs; None where the mode has none.
    """

    prompts: Sequence[Prompt]
    skipped: Set[str] = frozenset()
    model_id: str = ""
    segment: int = 0
    should_stop: Callable[[], bool] = field(default=lambda: False)
    on_outcomes: Callable[[Sequence[Outcome]], None] = field(default=lambda _: None)
    jobs: JobContext | None = None

    def remaining(self, prompts: Iterable[Prompt]) -> Sequence[Prompt]:
        """Return those of the prompts that are to be generated."""
        return [prompt for prompt in prompts if prompt.id not in self.skipped]

    def numbered(self) -> Iterator[tuple[int, Prompt]]:
        """Yield the prompts to be generated, each with its number among all prompts, until the run is to stop."""
        numbered = self.until_stopped(enumerate(self.prompts))
        return ((number, prompt) for number, prompt in numbered if prompt.id not in self.skipped)

    def until_stopped(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items until the run is to stop."""
        return takewhile(lambda _: not self.should_stop(), items)

    def finish_call(self, generated: Iterable[tuple[Prompt, Generated]], *, batch: int) -> Sequence[Outcome]:
        """Return the outcomes of one call, after calling `on_outcomes` with them.

        Args:
            generated: the call's prompts, each with what was generated for it.
            batch: the call's number.
        """
        outcomes = [
            outcome for prompt, result in generated for outcome in _outcomes(prompt, result, batch, self.segment)
        ]
        self.on_outcomes(outcomes)
        return outcomes


def _outcomes(prompt: Prompt, result: Generated, batch: int, segment: int) -> Iterator[Outcome]:
    shared: Mapping[str, Any] = {
        "prompt_id": prompt.id,
        "model": result.model,
        "attempts": result.attempts,
        "lost_answers": result.lost_answers,
        "batch": batch,
        "segment": segment,
    }
    if result.error is not None:
        yield Failure(error=result.error, timing=result.timing, **shared)
    for choice, answer in enumerate(result.answers):
        yield Completion(
            choice=choice,
            text=answer.text,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            timing=answer.timing or result.timing,
            token_ids=answer.token_ids,
            system_fingerprint=answer.system_fingerprint,
            **shared,
        )


def first_in_flight(_: object, pending: PendingPrompts, config: BatchConfig) -> Sequence[Prompt]:
    """Return the prompts that are generated first: as many as are in flight at once."""
    return [prompt for _, prompt in islice(pending.numbered(), config.count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode(Generic[P]):
    """A batch mode: how prompts reach a provider, and what `batch.size` means.

    Attributes:
        name: the value of `batch.mode`.
        protocol: what the mode calls. A provider that implements it can do the mode.
        request_protocol: what a provider implements that can do the mode by sending requests, which are then limited;
            None where the mode sends no requests.
        size_unit: what `batch.size` counts.
        generate: yields the outcomes of one call after another. Its arguments are an implementation of `protocol`, what
            to generate, how, and the size and order of batches.
        first_prompts: returns the prompts that the mode generates first, those of a warm-up. Its arguments are an
            implementation of `protocol`, what to generate, and the size and order of batches.
        validate: raises ConfigError if a provider, as it is configured, cannot do the mode.
        batch_is_call: `batch.size` prompts are one call, which share its time, its seed and its step.
        size_is_requests: `batch.size` is requests in flight, each with a connection; `auto` finds the number.
        is_job: `batch.size` prompts are handed over as a file, and `auto` is as many as the service takes. No prompt
            has a latency.
        pads_rows: in this process, rows are padded to the longest and run until the last row is done.
    """

    name: BatchMode
    protocol: type[P]
    request_protocol: type[Any] | None
    size_unit: str
    generate: Callable[[P, PendingPrompts, GenerationParams, BatchConfig], Generator[Sequence[Outcome]]]
    first_prompts: Callable[[P, PendingPrompts, BatchConfig], Sequence[Prompt]] = first_in_flight
    validate: Callable[[object], None] = field(default=lambda _: None)
    batch_is_call: bool = False
    size_is_requests: bool = False
    is_job: bool = False
    pads_rows: bool = False

    def is_supported_by(self, provider_class: type) -> bool:
        """Return whether a provider of this class can do the mode."""
        return issubclass(provider_class, self.protocol) or self.sends_requests_of(provider_class)

    def sends_requests_of(self, provider_class: type) -> bool:
        """Return whether a provider of this class does the mode by sending requests."""
        return self.request_protocol is not None and issubclass(provider_class, self.request_protocol)
