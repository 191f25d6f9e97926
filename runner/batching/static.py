"""Static batches: prompts are grouped beforehand, a group is one call, and the next call waits for the last row."""

import hashlib
from collections.abc import Generator, Iterator, Sequence

from runner.batching.base import Mode, PendingPrompts
from runner.config.schema import BatchConfig, GenerationParams
from runner.providers.protocols import ListProvider, StaticProvider, TokenCounter
from runner.types import Outcome, Prompt

Batch = tuple[Prompt, ...]


def generate(
    provider: StaticProvider, pending: PendingPrompts, params: GenerationParams, config: BatchConfig
) -> Generator[Sequence[Outcome]]:
    """Yield the outcomes batch by batch; `Outcome.batch` is the batch's number in the plan, from 0.

    The plan is always of the whole set. Of a batch that was generated in part, only the rest is generated.
    """
    for number, batch in pending.until_stopped(enumerate(plan(provider, pending.prompts, config))):
        seeded = params.model_copy(update={"seed": batch_seed(params.seed, batch)})
        if missing := pending.missing(batch):
            results = provider.generate_batch(missing, seeded)  # fewer than asked for if the run was stopped
            yield pending.outcomes(zip(missing, results, strict=False), batch=number)


def plan(provider: StaticProvider, prompts: Sequence[Prompt], config: BatchConfig) -> Iterator[Batch]:
    """Form the batches. The same prompts and settings always give the same batches.

    By length, longest first, neighbours pad each other least, and a batch that does not fit fails at the start.
    """
    order: Sequence[int] = range(len(prompts))
    if config.order == "length":
        length = provider.count_tokens if isinstance(provider, TokenCounter) else _characters
        lengths = [length(prompt) for prompt in prompts]
        order = sorted(order, key=lengths.__getitem__, reverse=True)  # stable: equal lengths keep the given order
    for start in range(0, len(order), config.count):
        yield tuple(prompts[place] for place in order[start : start + config.count])


def batch_seed(run_seed: int, batch: Batch) -> int:
    """Derive a batch's seed (32 bits) from the run's and the batch's own prompts, whenever it is generated."""
    digest = hashlib.sha256(str(run_seed).encode())
    for prompt in batch:
        digest.update(b"\0" + prompt.id.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest()[:4], "big")


def _characters(prompt: Prompt) -> int:
    return sum(len(message.content) for message in prompt.messages)


STATIC = Mode(
    name="static",
    protocol=StaticProvider,
    request_protocol=ListProvider,
    size_unit="prompts in one call",
    call=generate,
    batch_is_call=True,
    pads_rows=True,
)
