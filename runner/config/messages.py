"""Owns the messages for a wrong configuration, in the words of an override: which key, which value, what to do."""

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from runner.config.schema import RunConfig, Section

_BRANCHES = ("function-", "constrained-", "literal[", "lax-or-strict")
"""Parts of pydantic's locations that name a branch of a type instead of a key."""
_REMEDIES = {
    "tuple_type": "give a list: KEY=[A,B]",
    "string_pattern_mismatch": "that is not one of its possible values",
}
"""By pydantic's type of error, where its own message would not help."""


def explain(error: ValidationError, *, section: str = "", arguments: Sequence[str] | None = None) -> str:
    """Return pydantic's findings as a line per key, in the words of an override.

    Args:
        error: what a section or a constructor raised.
        section: name of the section whose constructor raised.
        arguments: names of the constructor's arguments.
    """
    remedies: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        subject, _, remedy = _explain_one(detail, section, arguments).partition(": ")
        remedies.setdefault(subject, []).append(remedy)
    return "\n".join(f"{subject}: {', or '.join(alternatives)}" for subject, alternatives in remedies.items())


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Return the message for an unknown `key` (dotted), with the `known` keys of its section."""
    section, _, name = key.rpartition(".")
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {'.'.join(filter(None, (section, close[0])))!r}? " if close else ""
    return (
        f"unknown key {key!r}: {hint}{f'{section!r} has' if section else 'there are'}: {', '.join(names) or 'no keys'}"
    )


def known_keys(section: str) -> list[str]:
    """Return the keys of a section of RunConfig (dotted; "" is the top); none for a name that is no section."""
    kind: type[BaseModel] | None = RunConfig
    for name in filter(None, section.split(".")):
        field = kind.model_fields.get(name) if kind else None
        kind = _section_in(field.annotation) if field else None
    return list(kind.model_fields) if kind else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a key holds, be it optional or not; None for a value."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, Section)), None)


def _explain_one(detail: ErrorDetails, section: str, arguments: Sequence[str] | None) -> str:
    location = [str(part) for part in detail["loc"] if not str(part).startswith(_BRANCHES)]
    key = ".".join(filter(None, (section, *location)))
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        names = arguments if arguments is not None else known_keys(key.rpartition(".")[0])
        return unknown_key(key, names)  # without its value, which may be a secret
    if detail["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{key} is missing: set {key}=VALUE"
    if detail["type"] == "value_error":
        return f"{key}: {detail['ctx']['error']}"
    message = detail["msg"]
    return f"{key}={detail['input']!r}: {_REMEDIES.get(detail['type']) or message[:1].lower() + message[1:]}"
