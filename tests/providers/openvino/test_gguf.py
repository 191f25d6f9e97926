"""Reads GGUF metadata as the package gguf does, and refuses damaged files."""

import struct
from pathlib import Path

import pytest

from runner.errors import ModelError
from runner.providers.openvino import files
from runner.providers.openvino.gguf import read_metadata
from tests.providers.openvino.models import CONTEXT


def test_the_metadata_is_what_the_package_gguf_reads(tiny_gguf: Path):
    from gguf import GGUFReader

    expected = {
        name: field.contents() for name, field in GGUFReader(tiny_gguf).fields.items() if not name.startswith("GGUF.")
    }
    assert read_metadata(tiny_gguf) == expected
    read = files.read(str(tiny_gguf))
    assert (read.context_length, read.special_ids) == (CONTEXT, frozenset({0, 1, 2}))
    assert read.has_byte_tokens


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:1000], "is damaged"),
        (lambda data: data[:20], "is damaged"),
        (lambda data: data[:24] + struct.pack("<Q", 2**63) + data[32:], "is damaged"),  # the length of the first key
        (lambda data: b"GGML" + data[4:], "is no GGUF file"),
        (lambda data: data[:4] + struct.pack("<I", 1) + data[8:], "version 2 or later"),
    ],
    ids=["truncated", "header", "length", "magic", "version"],
)
def test_a_damaged_file_is_a_clear_error(damage, message: str, tiny_gguf: Path, tmp_path: Path):
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damage(tiny_gguf.read_bytes()))
    with pytest.raises(ModelError, match=f"damaged.gguf {message}|damaged.gguf .*{message}"):
        read_metadata(path)
