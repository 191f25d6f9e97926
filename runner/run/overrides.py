"""What a resumed run may change: keys that move no text. The one table of them."""

from collections.abc import Mapping
from typing import Any

from runner.batching.modes import MODES
from runner.config.messages import known_keys, unknown_key
from runner.config.parse import parse
from runner.config.schema import RunConfig
from runner.errors import ConfigError

_CHANGEABLE = ("model.price", "batch.warmup", "batch.detach", "tracking.uri")
_CHANGEABLE_SECTIONS = ("limits.", "model.price.")
"""What decides when requests leave, when a run stops, what it costs and where it is published, in every mode."""
_SIZE = "batch.size"
"""Changeable where it counts requests in flight: elsewhere the rows of a batch may move each other's texts."""
_KEPT_PLACE = "it says where the run is kept"
_KEPT_TEXTS = "with another value the answers of one run would not be comparable with each other"
_PLACES = ("name", "repeat", "tracking")

REMEDIES: Mapping[str, str] = {
    "BudgetError": "limits.max_cost_usd=USD",
    "TooManyFailuresError": "limits.max_failures=N",
}
"""By the class of the error that ended a run: the override with which the run can go on."""


def override(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """Return the configuration of a recorded run with changed values.

    Args:
        config: what the run began with, its batch mode resolved.
        overrides: new values by dotted key.

    Raises:
        ConfigError: a key does not exist, or may not change within a run; or a value is wrong.
    """
    raw = config.model_dump(mode="json", by_alias=True)
    for key, value in overrides.items():
        if not is_changeable(key, config):
            raise ConfigError(_refusal(key, config))
        *sections, name = key.split(".")
        section = raw
        for part in sections:
            section[part] = section[part] or {}  # an absent section is null
            section = section[part]
        section[name] = value
    return parse(raw)


def is_changeable(key: str, config: RunConfig) -> bool:
    """Return whether a resume may change a key of this configuration."""
    if key == _SIZE:
        mode = MODES.get(config.batch.mode) if config.batch.mode else None
        return mode is not None and (mode.size_is_requests or mode.is_job)
    return key in _CHANGEABLE or key.startswith(_CHANGEABLE_SECTIONS)


def _refusal(key: str, config: RunConfig) -> str:
    section, _, name = key.rpartition(".")
    names = known_keys(section)
    if members := known_keys(key):
        return f"{key} is a section: set one of its keys: {', '.join(f'{key}.{member}' for member in members)}"
    if names and name not in names and section != "provider":
        return unknown_key(key, names)
    reason = _KEPT_PLACE if key.partition(".")[0] in _PLACES else _KEPT_TEXTS
    if key == _SIZE:
        reason = f"in mode {config.batch.mode!r} the prompts of a batch may move each other's texts"
    kept = config.flat()
    value = f"={kept[key]!r}" if key in kept else ""
    size = f", {_SIZE}" if is_changeable(_SIZE, config) else ""
    return (
        f"{key}: a resumed run keeps {key}{value}: {reason}. A resume can change limits.*, model.price, "
        f"batch.warmup, batch.detach, tracking.uri{size}; for anything else start a new run"
    )
