"""What is wrong with a configuration, in the words of an override: which key, which value, what to do."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from runner.config.schema import RunConfig, _Section


def explain(error: ValidationError, constructor: Mapping[str, Sequence[str]] | None = None) -> str:
    """Say what pydantic found, a line per key, in the words of an override.

    Args:
        error: what a section or a constructor raised.
        constructor: for a constructor, its section's name and its arguments.
    """
    section, known = next(iter(constructor.items())) if constructor else ("", None)
    said: dict[str, list[str]] = {}
    for found in error.errors(include_url=False):
        subject, _, remedy = _explain_one(found, section, known).partition(": ")
        said.setdefault(subject, []).append(remedy)
    return "\n".join(f"{subject}: {', or '.join(remedies)}" for subject, remedies in said.items())


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Say that `key` (dotted) is not known, and which keys its section has."""
    section, _, name = key.rpartition(".")
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {_join(section, close[0])!r}? " if close else ""
    return (
        f"unknown key {key!r}: {hint}{f'{section!r} has' if section else 'there are'}: {', '.join(names) or 'no keys'}"
    )


def known_keys(section: str) -> list[str]:
    """Return the keys of a section of RunConfig (dotted; "" is the top); none for what is no section of it."""
    kind: type[BaseModel] | None = RunConfig
    for name in filter(None, section.split(".")):
        field = kind.model_fields.get(name) if kind else None
        kind = _section_in(field.annotation) if field else None
    return list(kind.model_fields) if kind else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a key holds, be it optional or not; None for a value."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, _Section)), None)


def _explain_one(found: Any, section: str, known: Sequence[str] | None) -> str:
    location = [str(part) for part in found["loc"] if not str(part).startswith(_BRANCHES)]
    key = ".".join(filter(None, (section, *location)))
    if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        names = known if known is not None else known_keys(key.rpartition(".")[0])
        return f"{unknown_key(key, names)} (its value was {found['input']!r})"
    if found["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{key} is missing: set {key}=VALUE"
    if found["type"] == "value_error":
        return f"{key}: {found['ctx']['error']}"
    return f"{key}={found['input']!r}: {_REMEDIES.get(found['type']) or _lower_first(found['msg'])}"


_BRANCHES = ("function-", "constrained-", "literal[", "lax-or-strict")
"""Parts of a location that name a branch of a type, not a key."""
_REMEDIES = {
    "tuple_type": "give a list: KEY=[A,B]",
    "string_pattern_mismatch": "that is not one of the values it can have",
}


def _join(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
