"""What a user's configuration folder may contain: values, not code. `--trust-config` lifts the limits.

Hydra imports and calls what `_target_` names, its callbacks before anything else, sets the environment variables of
`hydra.job.env_set`, and hands the jobs to the launcher: a folder of YAML files from elsewhere is a program.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.utils import get_args_parser

from runner.config.bounded_yaml import AliasError, load_yaml
from runner.errors import ConfigError

TRUST_FLAG = "--trust-config"
_PROVIDERS = "runner.providers."
_HYDRA_VALUES = frozenset({"help", "verbose", "mode", "run", "sweep"})
"""Parts of Hydra's own configuration that hold values only. Loggers are built from class names."""
_VALUES_WITHIN = {"sweeper": "params", "job": "name"}
"""The key that holds a value only, in sections where others are code."""
_SEARCH_PATH = re.compile(r"(?:file://)?([^,\[\]'\"]+)")


def refuse_code(arguments: list[str]) -> list[str]:
    """Refuse a command line whose configuration folder holds code, and return the command line without our own flag.

    Raises:
        ConfigError: a file of the folder names a target outside `runner.providers`, or changes what Hydra runs.
    """
    if TRUST_FLAG in arguments:
        return [argument for argument in arguments if argument != TRUST_FLAG]
    for folder in _folders(arguments):
        refuse_code_in(folder)
    return arguments


def refuse_code_in(folder: Path) -> None:
    """Refuse a configuration folder that holds code.

    Raises:
        ConfigError: as for `refuse_code`.
    """
    for path in sorted(folder.rglob("*.y*ml")):
        for finding in _findings(path, path.relative_to(folder)):
            raise ConfigError(
                f"{path}: {finding}, which Hydra would run as code: remove it, or add {TRUST_FLAG} if you have read "
                "the folder's files"
            )


def _folders(arguments: list[str]) -> Iterator[Path]:
    """Yield every folder that Hydra would read configuration files from, besides our own."""
    parsed, _ = get_args_parser().parse_known_args(arguments)
    yield from (Path(folder) for folder in (parsed.config_dir, parsed.config_path) if folder)
    for override in parsed.overrides:
        key, _, value = override.partition("=")
        if key.lstrip("+~") == "hydra.searchpath":
            yield from (Path(path.strip()) for path in _SEARCH_PATH.findall(value) if path.strip())


def _findings(path: Path, relative: Path) -> Iterator[str]:
    """Yield what a file has that is code."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if relative.parts[0] == "hydra":
        yield "it is an option of Hydra's own configuration"
    if any(line.lstrip("# ").startswith("@package hydra") for line in text.splitlines()):
        yield "its @package header is Hydra's own configuration"
    try:
        values = load_yaml(text)
    except AliasError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, RecursionError):
        return  # Hydra reports a file that cannot be read, if it is used
    if isinstance(values, Mapping):
        yield from _hydra_findings(values)
    yield from _target_findings(values)


def _hydra_findings(values: Mapping[Any, Any]) -> Iterator[str]:
    for key, value in values.items():
        if key == "hydra" and isinstance(value, Mapping):
            yield from (f"it sets hydra.{name}" for name in _code_settings(value))
        elif str(key).startswith("hydra"):
            yield f"it sets {key}"
    for entry in values.get("defaults") or ():
        group = (
            str(next(iter(entry), "") if isinstance(entry, Mapping) else entry).removeprefix("override ").strip("/ ")
        )
        if group.startswith("hydra"):
            yield f"its defaults have {group}"


def _code_settings(hydra: Mapping[Any, Any]) -> Iterator[str]:
    """Yield what a section `hydra` sets besides values; of sweeper and job, `params` and `name` are values."""
    for name, value in hydra.items():
        parts = value if isinstance(value, Mapping) else {"": value}
        if name in _VALUES_WITHIN:
            yield from (f"{name}.{part}" for part in parts if part != _VALUES_WITHIN[name])
        elif name not in _HYDRA_VALUES:
            yield str(name)


def _target_findings(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        target = value.get("_target_")
        if target is not None and not str(target).startswith(_PROVIDERS):
            yield f"_target_ is {str(target)!r}"
        for member in value.values():
            yield from _target_findings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _target_findings(member)
