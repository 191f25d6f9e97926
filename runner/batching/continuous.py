"""Continuous batching: the provider keeps `batch.size` sequences alive and refills a place as soon as it is free."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from runner.config import BatchConfig, GenerationParams
from runner.providers.base import ContinuousProvider
from runner.records import Outcome, Prompt


def generate(
    provider: ContinuousProvider, prompts: Sequence[Prompt], params: GenerationParams, config: BatchConfig
) -> Iterator[Outcome]:
    """Yield outcomes as they finish; `Outcome.batch` is the prompt's place in the set, for there are no batches."""
    places = {prompt.id: place for place, prompt in enumerate(prompts)}
    for outcome in provider.generate_continuously(prompts, params, config.count):
        yield replace(outcome, batch=places[outcome.prompt_id])
