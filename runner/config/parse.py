"""Owns the step from an untyped configuration to a checked RunConfig."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from runner.config.messages import explain
from runner.config.renamed import refuse_renamed
from runner.config.schema import RunConfig
from runner.errors import ConfigError


def parse(raw: Mapping[str, Any]) -> RunConfig:
    """Check an untyped configuration, as Hydra composed it or as config.yaml and run.json record it.

    Args:
        raw: sections as mappings, by the keys of RunConfig; `provider` has `_target_`.

    Raises:
        ConfigError: a key is unknown, missing, or has a wrong value: one line per key, with value and remedy.
    """
    refuse_renamed(raw)
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
