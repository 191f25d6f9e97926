"""The batch modes by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from runner.batching import concurrent, continuous, static
from runner.config import BatchConfig, BatchMode, GenerationParams
from runner.records import Outcome, Prompt

Mode = Callable[[Any, Sequence[Prompt], GenerationParams, BatchConfig], Iterator[Outcome]]

MODES: Mapping[BatchMode, Mode] = {
    "static": static.generate,
    "continuous": continuous.generate,
    "concurrent": concurrent.generate,
}
