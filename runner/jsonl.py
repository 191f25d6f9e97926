"""One value, one line of JSON, and back: what every line of a run's own files is written and read with."""

import json
from typing import Any

from pydantic_core import from_json


def encode(value: Any) -> bytes:
    """Return the value as one line, with its end. A lone surrogate, which has no UTF-8, is kept as an escape."""
    try:
        line = json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(value).encode("ascii")
    return line + b"\n"


def decode(line: bytes | str) -> Any:
    """Return the value of one line.

    Raises:
        json.JSONDecodeError: it is not JSON.
    """
    try:
        return from_json(line)  # four times as fast as json, and stricter: it knows no lone surrogates
    except ValueError:
        return json.loads(line)
