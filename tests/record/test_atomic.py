"""Files that are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from runner.errors import JournalError
from runner.record.atomic import atomic_write


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(JournalError, match=r"summary\.json cannot be written: the disk is gone"):
        atomic_write(tmp_path / "summary.json", b"{}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("planted", ["summary.json", ".summary.json.new"])
def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(planted: str, tmp_path: Path):
    canary, folder = tmp_path / "canary", tmp_path / "run"
    canary.write_text("as it was")
    folder.mkdir()
    (folder / planted).symlink_to(canary)
    atomic_write(folder / "summary.json", b"{}")
    assert canary.read_text() == "as it was"
    assert [path.name for path in folder.iterdir()] == ["summary.json"]
    assert not (folder / "summary.json").is_symlink()
