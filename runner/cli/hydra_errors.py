"""Owns the messages for errors of Hydra and OmegaConf: which key, which value, what to do."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue

from runner.config.messages import known_keys, unknown_key
from runner.config.renamed import RENAMED, renamed_key
from runner.config.schema import CONF_DIR
from runner.text import first_line, one_line

_FULL_ERROR = "HYDRA_FULL_ERROR"


def tracebacks_requested() -> bool:
    """Return whether the environment requests tracebacks."""
    return os.environ.get(_FULL_ERROR) == "1"


@contextlib.contextmanager
def raise_errors() -> Iterator[None]:
    """Make Hydra raise its exceptions instead of printing them and exiting with 1."""
    before = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = before


def explain(error: Exception) -> str:
    """Return an error of Hydra or OmegaConf as one message: which key, which value, what to do."""
    text = str(error).strip()
    key = re.search(r"full_key: (\S+)", text)
    if isinstance(error, MissingMandatoryValue):
        return f"{key[1]} is needed: set {key[1]}=VALUE" if key else first_line(error)
    if isinstance(error, OverrideParseException):
        reason = first_line(error.__cause__ or error)
        return f"{error.override}: cannot be read ({reason}): quote a value with special characters: 'KEY=\"VALUE\"'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_option(error.missing_cfg_file, error.options)
    if match := re.match(r"Could not (?P<action>override|append|delete).*?'(?P<key>[^'=]+)", text):
        return _wrong_key(match["key"], appended=match["action"] == "append")
    if text.startswith("Config group override must be"):  # batch=4
        return f"{text}: a group takes one of its options: GROUP=OPTION"
    if key:
        return f"{key[1]}: {first_line(error)}"
    return one_line(re.split(r"\n\s*Config search path:|\nSet the environment variable|\nSee https", text)[0])


def _no_such_option(config: str, options: Sequence[str] | None) -> str:
    group, _, option = config.removesuffix(".yaml").rpartition("/")
    options = options or sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
    return f"{group}={option!r}: no such option; {group!r} has: {', '.join(options)}"


def _wrong_key(key: str, *, appended: bool) -> str:
    """Return the message for a key that Hydra cannot override, append or delete: its first unknown part, if any.

    The value of an unknown key is not repeated: the value may be a secret.
    """
    if key in RENAMED:
        return f"{key!r}: {renamed_key(key)}"
    parts = key.split(".")
    if parts[0] == "hydra":
        return f"{key!r}: Hydra has no such key (python -m runner --cfg hydra shows all): write +{key}=VALUE to add one"
    for depth, name in enumerate(parts):
        section = ".".join(parts[:depth])
        known = known_keys(section)
        if section and not known:
            return f"unknown key {key!r}: python -m runner --cfg job shows all keys"
        if name not in known:
            return unknown_key(".".join(parts[: depth + 1]), known)
    if known_keys(key):
        return f"{key!r} is a section: choose an option of it (python -m runner --help) or set one of its keys"
    if appended:
        return f"{key!r} exists already: set it without the +"
    return f"{key!r} is not set here: write +{key}=VALUE"
