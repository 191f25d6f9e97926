"""What a batch mode is, and what it is given to do."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Generic, TypeVar

from runner.config.schema import BatchConfig, BatchMode, GenerationParams
from runner.types import Completion, Failure, Generated, Outcome, Prompt

T = TypeVar("T")
P = TypeVar("P")


def _never() -> bool:
    return False


def _ignore(_outcomes: Sequence[Outcome]) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingPrompts:
    """The prompts of a run. Batches and numbers follow from all of them, whatever is completed already.

    Attributes:
        completed: ids of prompts that are not to be generated.
        segment: which process of the run this is; outcomes bear it.
        should_stop: whether no further prompt is to be sent.
        on_outcomes: called with each call's outcomes before another prompt is sent in its place; it may stop the run.
    """

    prompts: Sequence[Prompt]
    completed: Set[str] = frozenset()
    segment: int = 0
    should_stop: Callable[[], bool] = _never
    on_outcomes: Callable[[Sequence[Outcome]], None] = _ignore

    def missing(self, prompts: Iterable[Prompt]) -> Sequence[Prompt]:
        """Return those of the prompts that are to be generated."""
        return [prompt for prompt in prompts if prompt.id not in self.completed]

    def numbered(self) -> Iterator[tuple[int, Prompt]]:
        """Yield what is to be generated, each with its number in the set, until the run is to stop."""
        numbered = self.until_stopped(enumerate(self.prompts))
        return ((number, prompt) for number, prompt in numbered if prompt.id not in self.completed)

    def until_stopped(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items until the run is to stop."""
        return takewhile(lambda _: not self.should_stop(), items)

    def outcomes(self, generated: Iterable[tuple[Prompt, Generated]], *, batch: int) -> Sequence[Outcome]:
        """Return the outcomes of one call, after telling `on_outcomes` of them."""
        outcomes = [
            outcome for prompt, result in generated for outcome in _outcomes(prompt, result, batch, self.segment)
        ]
        self.on_outcomes(outcomes)
        return outcomes


def _outcomes(prompt: Prompt, result: Generated, batch: int, segment: int) -> Iterator[Outcome]:
    shared: Mapping[str, Any] = {
        "prompt_id": prompt.id,
        "timing": result.timing,
        "model": result.model,
        "attempts": result.attempts,
        "batch": batch,
        "segment": segment,
    }
    if result.error is not None:
        yield Failure(error=result.error, **shared)
    for choice, answer in enumerate(result.answers):
        yield Completion(
            choice=choice, text=answer.text, finish_reason=answer.finish_reason, usage=answer.usage, **shared
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode(Generic[P]):
    """A batch mode: how prompts reach a provider, and what `batch.size` means.

    Attributes:
        name: as in `batch.mode`.
        protocol: what the mode calls. A provider with it can do the mode.
        request_protocol: what a provider has that does the mode by sending requests: those are limited.
        size_unit: what `batch.size` counts.
        call: generates; yields the outcomes of one call after another.
        batch_is_call: a batch of `batch.size` prompts is one call: its prompts share its time, its seed and a step.
        size_is_requests: `batch.size` is requests in flight, each a connection; auto finds it.
        pads_rows: in this process, rows are padded to the longest and run until the last is done.
    """

    name: BatchMode
    protocol: type[P]
    request_protocol: type[Any] | None
    size_unit: str
    call: Callable[[P, PendingPrompts, GenerationParams, BatchConfig], Generator[Sequence[Outcome]]]
    batch_is_call: bool = False
    size_is_requests: bool = False
    pads_rows: bool = False

    def is_supported_by(self, kind: type) -> bool:
        """Return whether a provider of this class can do the mode."""
        return issubclass(kind, self.protocol) or self.sends_requests_of(kind)

    def sends_requests_of(self, kind: type) -> bool:
        """Return whether a provider of this class does the mode by sending requests."""
        return self.request_protocol is not None and issubclass(kind, self.request_protocol)

    def generate(
        self, caller: object, pending: PendingPrompts, params: GenerationParams, config: BatchConfig
    ) -> Generator[Sequence[Outcome]]:
        """Yield the outcomes of one call after another.

        Args:
            caller: a provider, or one whose requests are limited.
            pending: what to generate.
            params: how.
            config: the size, and the order.
        """
        if not isinstance(caller, self.protocol):
            raise TypeError(f"{caller!r} has no calls of mode {self.name!r}: run.prepare refuses such a pair")
        return self.call(caller, pending, params, config)
