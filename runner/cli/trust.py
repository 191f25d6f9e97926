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
from yaml.constructor import ConstructorError

from runner.config.bounded_yaml import AliasError, load_yaml
from runner.errors import ConfigError
from runner.text import first_line

TRUST_FLAG = "--trust-config"
_PROVIDERS = "runner.providers."
_HYDRA_VALUES = frozenset({"help", "verbose", "mode", "run", "sweep"})
"""Parts of Hydra's own configuration that hold values only. Loggers are built from class names."""
_VALUES_WITHIN = {"sweeper": "params", "job": "name"}
"""The key that holds a value only, in sections where others are code."""
_HYDRA = "hydra"
_NAMES_HYDRA = re.compile(r"\bhydra\b")
"""In a package, an entry of the defaults or an override: Hydra's own configuration, wherever it stands in the name."""
_CONFIGURATION = re.compile(r"\.y.*ml")
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
    for path in sorted(folder.rglob("*")):
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
    """Yield what a file has that is code.

    Raises:
        ConfigError: the file cannot be read, or Hydra may read what we cannot.
    """
    if path.is_symlink() and path.is_dir():
        yield "it is a link to a folder whose files are not looked at"
    if not _CONFIGURATION.fullmatch(path.suffix) or path.is_dir():
        return
    if _HYDRA in (*relative.parts, path.stem):
        yield "it is an option of Hydra's own configuration"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        if any("@package" in line and _NAMES_HYDRA.search(line) for line in text.splitlines()):
            yield "its @package header is Hydra's own configuration"
        values = load_yaml(text)
    except (OSError, AliasError, ConstructorError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {first_line(error)}: correct the file, or remove it") from None
    except yaml.YAMLError:
        return  # no YAML: Hydra reports the file, if it is used
    if isinstance(values, Mapping):
        yield from _hydra_findings(values)
    yield from _target_findings(values)


def _hydra_findings(values: Mapping[Any, Any]) -> Iterator[str]:
    for key, value in values.items():
        if key == _HYDRA and isinstance(value, Mapping):
            yield from (f"it sets hydra.{name}" for name in _code_settings(value))
        elif str(key).startswith(_HYDRA):
            yield f"it sets {key}"
    defaults = values.get("defaults")
    for entry in defaults if isinstance(defaults, list) else ():
        if _NAMES_HYDRA.search(str(entry)):
            yield f"its defaults have {entry}"


def _code_settings(hydra: Mapping[Any, Any]) -> Iterator[str]:
    """Yield what a section `hydra` sets besides values; of sweeper and job, `params` and `name` are values."""
    for name, value in hydra.items():
        parts = value if isinstance(value, Mapping) else {"": value}
        if name in _VALUES_WITHIN:
            yield from (f"{name}.{part}" for part in parts if part != _VALUES_WITHIN[name])
            params = parts.get("params")
            keys = params if isinstance(params, Mapping) else [params]
            yield from (f"{name}.params: {key}" for key in keys if _NAMES_HYDRA.search(str(key)))
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
