"""Static batches: prompts are grouped beforehand, a group is one call, and the next call waits for the last row."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from runner.batching.work import Work
from runner.config import BatchConfig, GenerationParams
from runner.providers.base import StaticProvider, TokenCounter
from runner.records import Outcome, Prompt

Batch = tuple[Prompt, ...]


def generate(
    provider: StaticProvider, work: Work, params: GenerationParams, config: BatchConfig
) -> Iterator[Sequence[Outcome]]:
    """Yield the outcomes batch by batch; `Outcome.batch` is the batch's number in the plan, from 0.

    The plan is always of the whole set. Of a batch that was generated in part, only the rest is generated.
    """
    for number, batch in work.left(enumerate(plan(provider, work.prompts, config))):
        seeded = params.model_copy(update={"seed": batch_seed(params.seed, batch)})
        if missing := work.missing(batch):
            outcomes = provider.generate_batch(missing, seeded)
            work.answered(outcomes)
            yield [replace(outcome, batch=number) for outcome in outcomes]


def plan(provider: StaticProvider, prompts: Sequence[Prompt], config: BatchConfig) -> Iterator[Batch]:
    """Form the batches. The same prompts and settings always give the same batches.

    By length, longest first, neighbours pad each other least, and a batch that does not fit fails at the start.
    """
    places: Sequence[int] = range(len(prompts))
    if config.order == "length":
        length = provider.count_tokens if isinstance(provider, TokenCounter) else _characters
        lengths = [length(prompt) for prompt in prompts]
        places = sorted(places, key=lengths.__getitem__, reverse=True)  # stable: equal lengths keep the given order
    for start in range(0, len(places), config.count):
        yield tuple(prompts[place] for place in places[start : start + config.count])


def batch_seed(run_seed: int, batch: Batch) -> int:
    """Derive a batch's seed (32 bits) from the run's and the batch's own prompts, whenever it is generated."""
    digest = hashlib.sha256(str(run_seed).encode())
    for prompt in batch:
        digest.update(b"\0" + prompt.id.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest()[:4], "big")


def _characters(prompt: Prompt) -> int:
    return sum(len(message.content) for message in prompt.messages)
