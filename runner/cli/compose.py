"""Owns OmegaConf: composes a checked configuration from a command line."""

import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from omegaconf import DictConfig, OmegaConf

from runner.config.parse import parse
from runner.config.schema import CONF_DIR, RunConfig
from runner.config.secrets import refuse_secrets
from runner.errors import ConfigError

OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(3), use_cache=True, replace=True)

_LABEL_KEYS = ("provider", "model", "model.id", "batch", "batch.mode", "batch.size")
"""Keys whose values a configuration's label contains."""
_STORAGE_KEYS = ("name", "experiment", "tracking")
"""Keys that change where a run is stored, and nothing else."""


def compose_config(arguments: Sequence[str], *, config_dir: str | None = None) -> RunConfig:
    """Compose and check one configuration without Hydra's folders and logs, for commands that generate nothing.

    Raises:
        ConfigError: an override holds a secret, `config_dir` is no folder, or a value is wrong.
        HydraException, OmegaConfBaseException: an override cannot be applied.
    """
    refuse_secrets(arguments)
    if config_dir and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir!r}: no such folder: give one with configuration files")
    search_path = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name="runner"):
        return from_hydra(hydra.compose("config", [*arguments, *search_path]))


def from_hydra(cfg: DictConfig) -> RunConfig:
    """Return a composed configuration as a checked RunConfig.

    Raises:
        ConfigError: a key or a value is wrong.
        OmegaConfBaseException: an interpolation fails, or a mandatory value is missing.
    """
    return parse(cast("Mapping[str, Any]", OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)))


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values of KEY=VALUE arguments by key, read as Hydra reads them.

    Raises:
        ConfigError: an argument holds a secret, or is no KEY=VALUE with one value.
        HydraException: an argument cannot be read.
    """
    refuse_secrets(arguments)
    parsed = OverridesParser.create().parse_overrides([*arguments])
    for override in parsed:
        if override.type is not OverrideType.CHANGE or override.is_sweep_override() or override.package:
            raise ConfigError(f"{override.input_line!r}: give KEY=VALUE with one value, such as limits.max_cost_usd=5")
    return {override.key_or_group: override.value() for override in parsed}


def expand_repeat(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a sweep's `repeat=3` expanded to the values that Hydra sweeps over: repeat=1,2,3.

    `repeat` becomes the first key, which Hydra varies slowest: a load on the machine then slows all configurations
    alike.
    """
    repeats = [match for argument in arguments if (match := re.fullmatch(r"repeat=(\d+)", argument))]
    if not repeats or not {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    rest = [argument for argument in arguments if not re.fullmatch(r"repeat=\d+", argument)]
    first_override = next((index for index, argument in enumerate(rest) if "=" in argument), len(rest))
    values = ",".join(map(str, range(1, int(repeats[-1][1]) + 1)))
    return [*rest[:first_override], f"repeat={values}", *rest[first_override:]]


def distinguishing(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that distinguish a sweep's jobs and are not in a configuration's label."""
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    return [
        override
        for override, key in zip(overrides, keys, strict=True)
        if key not in _LABEL_KEYS and key.partition(".")[0] not in _STORAGE_KEYS
    ]
