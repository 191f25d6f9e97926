"""The batch modes by name: the only table of them."""

from collections.abc import Mapping
from typing import Any

from runner.batching.base import Mode
from runner.batching.concurrent import CONCURRENT
from runner.batching.continuous import CONTINUOUS
from runner.batching.job import JOB
from runner.batching.static import STATIC
from runner.config.schema import BatchMode

MODES: Mapping[BatchMode, Mode[Any]] = {mode.name: mode for mode in (STATIC, CONTINUOUS, CONCURRENT, JOB)}


def modes_of(provider_class: type) -> tuple[BatchMode, ...]:
    """Return the names of the modes that a provider of this class can do."""
    return tuple(mode.name for mode in MODES.values() if mode.is_supported_by(provider_class))
