"""From a command line to a checked configuration: owns OmegaConf."""

import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from runner.config.parse import parse
from runner.config.schema import CONF_DIR, RunConfig
from runner.config.secrets import refuse_secrets
from runner.errors import ConfigError

OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(3), use_cache=True, replace=True)

_LABEL = ("provider", "model", "model.id", "batch", "batch.mode", "batch.size")
"""Overrides that a configuration's label states already."""
_FILED = ("name", "experiment", "tracking")
"""Overrides that change where a run is filed, not the run."""


def compose_config(arguments: Sequence[str], *, config_dir: str | None = None) -> RunConfig:
    """Compose and check one configuration without Hydra's folders and logs, for commands that run nothing."""
    refuse_secrets(arguments)
    if config_dir and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir!r}: there is no such folder")
    search_path = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3", job_name="runner"):
        return from_hydra(hydra.compose("config", [*arguments, *search_path]))


def from_hydra(cfg: DictConfig) -> RunConfig:
    """Check a composed configuration; from here on there is no DictConfig."""
    return parse(cast("Mapping[str, Any]", OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)))


def expand_repeat(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `repeat=3` of a sweep as what Hydra sweeps over: repeat=1,2,3.

    It is put first, for Hydra varies the first key slowest: what else the machine does then hits all jobs alike.
    """
    repeats = [match for argument in arguments if (match := re.fullmatch(r"repeat=(\d+)", argument))]
    if not repeats or not {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    rest = [argument for argument in arguments if not re.fullmatch(r"repeat=\d+", argument)]
    first = next((index for index, argument in enumerate(rest) if "=" in argument), len(rest))
    return [*rest[:first], f"repeat={','.join(map(str, range(1, int(repeats[-1][1]) + 1)))}", *rest[first:]]


def distinguishing(overrides: Sequence[str]) -> list[str]:
    """Return the overrides by which the jobs of a sweep differ, beyond what a configuration's label states."""
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    return [
        override
        for override, key in zip(overrides, keys, strict=True)
        if key not in _LABEL and key.partition(".")[0] not in _FILED
    ]
