"""Continuous batching: the provider keeps `batch.size` sequences alive and refills a place as soon as it is free."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from runner.batching.work import Work
from runner.config import BatchConfig, GenerationParams
from runner.providers.base import ContinuousProvider
from runner.records import Outcome, Prompt


def generate(
    provider: ContinuousProvider, work: Work, params: GenerationParams, config: BatchConfig
) -> Iterator[Sequence[Outcome]]:
    """Yield a prompt's outcomes as it finishes; `Outcome.batch` is its place in the set, for there are no batches."""
    places: dict[str, int] = {}

    def fed() -> Iterator[Prompt]:
        for place, prompt in work.numbered():
            places[prompt.id] = place
            yield prompt

    for outcomes in provider.generate_continuously(fed(), params, config.count):
        work.answered(outcomes)
        place = places.pop(outcomes[0].prompt_id)
        yield [replace(outcome, batch=place) for outcome in outcomes]
