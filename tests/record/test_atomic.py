"""Files that are written whole or not at all."""

import os
from pathlib import Path

import pytest

from runner.errors import JournalError
from runner.record.atomic import atomic_write


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path):
    os.mkfifo(tmp_path / ".summary.json.new")  # what is no file cannot be synced
    reader = os.open(tmp_path / ".summary.json.new", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(JournalError, match=r"summary\.json cannot be written"):
        atomic_write(tmp_path / "summary.json", b"{}")
    os.close(reader)
    assert not (tmp_path / "summary.json").exists()
