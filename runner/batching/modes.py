"""The batch modes by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from runner.batching import concurrent, continuous, static
from runner.batching.work import Work
from runner.config import BatchConfig, BatchMode, GenerationParams
from runner.records import Outcome

Mode = Callable[[Any, Work, GenerationParams, BatchConfig], Iterator[Sequence[Outcome]]]
"""From a provider and its work to the outcomes of one call after another."""

MODES: Mapping[BatchMode, Mode] = {
    "static": static.generate,
    "continuous": continuous.generate,
    "concurrent": concurrent.generate,
}
