"""Static batches: prompts are grouped beforehand, a group is one call, and the next call waits for the last row."""

from collections.abc import Generator, Iterator, Sequence

from runner.batching.base import Mode, PendingPrompts
from runner.batching.unforeseen import UnforeseenErrors
from runner.config.schema import BatchConfig, GenerationParams
from runner.providers.in_process import derive_seed
from runner.providers.protocols import ListProvider, StaticProvider, TokenCounter
from runner.types import Generated, Outcome, Prompt

Batch = tuple[Prompt, ...]


def generate(
    provider: StaticProvider, pending: PendingPrompts, params: GenerationParams, config: BatchConfig
) -> Generator[Sequence[Outcome]]:
    """Yield the outcomes batch by batch; `Outcome.batch` is the batch's number, from 0.

    Batches are formed of all prompts. Of a batch with skipped prompts, the remaining ones are generated.
    """
    errors = UnforeseenErrors(pending.model_id)
    for number, batch in pending.until_stopped(enumerate(form_batches(provider, pending.prompts, config))):
        seeded = params.model_copy(update={"seed": batch_seed(params.seed, batch)})
        if remaining := pending.remaining(batch):
            results = errors.call(_generate_batch(provider, remaining, seeded), remaining)
            yield pending.finish_call(results, batch=number)
            errors.raise_if_recurring()


def _generate_batch(
    provider: StaticProvider, prompts: Sequence[Prompt], params: GenerationParams
) -> Iterator[tuple[Prompt, Generated]]:
    """Call the provider once iterated over; yield fewer results than prompts if the run was stopped."""
    yield from zip(prompts, provider.generate_batch(prompts, params), strict=False)


def first_batch(provider: StaticProvider, pending: PendingPrompts, config: BatchConfig) -> Sequence[Prompt]:
    """Return the first batch that has prompts to be generated; empty where none has."""
    batches = map(pending.remaining, form_batches(provider, pending.prompts, config))
    return next(filter(None, batches), ())


def form_batches(provider: StaticProvider, prompts: Sequence[Prompt], config: BatchConfig) -> Iterator[Batch]:
    """Form the batches. The same prompts and settings always give the same batches.

    Ordered by length, neighbours have the least padding. The longest come first, so that a batch that does not fit in
    memory fails at the start.
    """
    order: Sequence[int] = range(len(prompts))
    if config.order == "length":
        length = provider.count_tokens if isinstance(provider, TokenCounter) else _count_characters
        lengths = [length(prompt) for prompt in prompts]
        order = sorted(order, key=lengths.__getitem__, reverse=True)  # stable: equal lengths keep the given order
    for start in range(0, len(order), config.count):
        yield tuple(prompts[index] for index in order[start : start + config.count])


def batch_seed(run_seed: int, batch: Batch) -> int:
    """Return a batch's seed (32 bits), derived from the run's seed and the ids of the batch's prompts."""
    return derive_seed(run_seed, (prompt.id for prompt in batch))


def _count_characters(prompt: Prompt) -> int:
    return sum(len(message.content) for message in prompt.messages)


def _validate(provider: object) -> None:
    if isinstance(provider, ListProvider):
        provider.validate_lists()


STATIC = Mode(
    name="static",
    protocol=StaticProvider,
    request_protocol=ListProvider,
    size_unit="prompts in one call",
    generate=generate,
    first_prompts=first_batch,
    validate=_validate,
    batch_is_call=True,
    pads_rows=True,
)
