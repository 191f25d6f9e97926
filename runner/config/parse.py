"""From a composed configuration, untyped, to a checked RunConfig."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from runner.config.messages import explain
from runner.config.renamed import refuse_renamed
from runner.config.schema import RunConfig
from runner.errors import ConfigError


def parse(raw: Mapping[str, Any]) -> RunConfig:
    """Check a composed configuration.

    Raises:
        ConfigError: one line per wrong key, each naming key, value and remedy.
    """
    refuse_renamed(raw)
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
