"""Continuous batching: the provider keeps `batch.size` sequences alive and refills a slot as soon as it is free."""

from collections.abc import Generator, Iterator, Sequence

from runner.batching.base import Mode, PendingPrompts
from runner.config.schema import BatchConfig, GenerationParams
from runner.providers.protocols import ContinuousProvider
from runner.types import Outcome, Prompt


def generate(
    provider: ContinuousProvider, pending: PendingPrompts, params: GenerationParams, config: BatchConfig
) -> Generator[Sequence[Outcome]]:
    """Yield a prompt's outcomes as it finishes; `Outcome.batch` is the prompt's number among all prompts."""
    numbers: dict[str, int] = {}

    def prompts() -> Iterator[Prompt]:
        for number, prompt in pending.numbered():
            numbers[prompt.id] = number
            yield prompt

    for prompt, result in provider.generate_continuously(prompts(), params, config.count):
        yield pending.finish_call([(prompt, result)], batch=numbers.pop(prompt.id))


CONTINUOUS = Mode(
    name="continuous",
    protocol=ContinuousProvider,
    request_protocol=None,
    size_unit="sequences alive at once",
    generate=generate,
)
