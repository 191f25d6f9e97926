"""Continuous batching: the provider keeps `batch.size` sequences alive and refills a slot as soon as it is free."""

from collections.abc import Generator, Iterator, Sequence
from itertools import chain, islice

from runner.batching.base import Mode, PendingPrompts
from runner.batching.unforeseen import UnforeseenErrors
from runner.config.schema import BatchConfig, GenerationParams
from runner.providers.protocols import ContinuousProvider
from runner.types import Outcome, Prompt


def generate(
    provider: ContinuousProvider, pending: PendingPrompts, params: GenerationParams, config: BatchConfig
) -> Generator[Sequence[Outcome]]:
    """Yield a prompt's outcomes as it finishes; `Outcome.batch` is the prompt's number among all prompts.

    Where the provider raises, the prompts that it had taken fail, and it is called again for the others.
    """
    alive, numbers = dict[str, Prompt](), dict[str, int]()

    def prompts() -> Iterator[Prompt]:
        for number, prompt in pending.numbered():
            alive[prompt.id], numbers[prompt.id] = prompt, number
            yield prompt

    errors, waiting = UnforeseenErrors(pending.model_id), prompts()
    for first in waiting:
        results = provider.generate_continuously(chain([first], waiting), params, config.count)
        while finished := errors.call(islice(results, 1), alive.values()):
            for prompt, result in finished:
                del alive[prompt.id]
                yield pending.finish_call([(prompt, result)], batch=numbers.pop(prompt.id))
            errors.raise_if_recurring()


CONTINUOUS = Mode(
    name="continuous",
    protocol=ContinuousProvider,
    request_protocol=None,
    size_unit="sequences alive at once",
    generate=generate,
)
