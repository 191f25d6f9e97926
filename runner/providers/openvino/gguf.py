"""Reads the metadata of a GGUF file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.

The reader of the package gguf takes seconds for a vocabulary, and OpenVINO GenAI does not give the metadata away.
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

from runner.errors import ModelError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_UNREADABLE = (struct.error, KeyError, UnicodeDecodeError, MemoryError, OverflowError, RecursionError)
"""What damaged bytes raise: too few of them, an unknown type, a length or a depth that cannot be."""


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata by key: numbers, texts, and lists of them.

    Raises:
        ModelError: the file cannot be read, or is no GGUF file.
    """
    try:
        with path.open("rb") as file:
            magic, version, _tensors, entries = _unpack(file, "4sIQQ")
            if magic == b"GGUF" and version >= 2:
                return {_read_text(file): _read_value(file, _unpack(file, "I")[0]) for _ in range(entries)}
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except _UNREADABLE as error:
        raise ModelError(f"{path} is damaged: its metadata ends early or has unknown types") from error
    raise ModelError(f"{path} is no GGUF file of version 2 or later")


def _unpack(file: BinaryIO, types: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{types}", file.read(struct.calcsize(f"<{types}")))


def _read_text(file: BinaryIO) -> str:
    length = _unpack(file, "Q")[0]
    data = file.read(length)
    if len(data) < length:
        raise struct.error("the text ends early")
    return data.decode("utf-8")


def _read_value(file: BinaryIO, type_: int) -> Any:
    if type_ == _STRING:
        return _read_text(file)
    if type_ != _ARRAY:
        return _unpack(file, _SCALARS[type_])[0]
    item_type, length = _unpack(file, "IQ")
    if item_type in _SCALARS:
        return list(_unpack(file, f"{length}{_SCALARS[item_type]}"))
    return [_read_value(file, item_type) for _ in range(length)]
