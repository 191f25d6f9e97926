"""A record is this user's own where a signature by the user's key verifies."""

import os
import stat
from pathlib import Path

import pytest

from runner.record.folder import RunFolder
from runner.record.manifest import RunManifest
from runner.record.ownership import is_signed, sign
from runner.record.relocate import base_of, sweep_dir_of

MANIFEST = RunManifest(
    key="k", name="n", config={}, prompts={}, tags={}, sweep_dir="/there/sweeps/7", working_dir="/there",
    folder="outputs/runs/1",
)  # fmt: skip


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "batch-generation-runner"


@pytest.fixture
def signed(state: Path, tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_bytes(b"{}")
    sign(tmp_path / "run.json", b"{}")
    return tmp_path / "run.json"


def test_what_was_signed_is_own_and_the_key_is_the_users_alone(signed: Path, state: Path):
    assert is_signed(signed)
    (key,) = state.iterdir()
    assert (stat.S_IMODE(key.stat().st_mode), key.stat().st_size) == (0o600, 32)
    sign(signed, b"{}")
    assert is_signed(signed), "a second signature has the same key"


@pytest.mark.parametrize("change", ["content", "signature", "no signature", "key", "no key", "open key", "linked key"])
def test_what_was_changed_is_foreign(change: str, signed: Path, state: Path):
    signature, key = signed.with_suffix(".hmac"), state / "ownership.key"
    if change == "content":
        signed.write_bytes(b"{ }")
    elif change == "signature":
        signature.write_bytes(b"0" * 64 + b"\n")
    elif change == "no signature":
        signature.unlink()
    elif change == "key":
        key.write_bytes(b"0" * 32)
    elif change == "no key":
        key.unlink()
    elif change == "open key":
        key.chmod(0o644)
    else:
        key.rename(state / "elsewhere")
        key.symlink_to(state / "elsewhere")
    assert not is_signed(signed)


@pytest.mark.parametrize("name", ["run.json", "run.hmac"])
@pytest.mark.parametrize("kind", ["a pipe", "a link"])
def test_what_is_no_file_is_foreign_and_not_read(kind: str, name: str, signed: Path):
    path = signed.with_name(name)
    if kind == "a pipe":
        path.unlink()
        os.mkfifo(path)  # whoever opened it would wait for ever
    else:
        path.rename(path.with_suffix(".elsewhere"))
        path.symlink_to(path.with_suffix(".elsewhere"))
    assert not is_signed(signed)


def test_without_a_state_folder_a_run_is_recorded_and_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    RunFolder(tmp_path).write_manifest(MANIFEST)
    assert not RunFolder(tmp_path).is_own
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run.json"]


def test_relative_paths_start_beside_a_record_that_was_moved(state: Path, tmp_path: Path):
    moved, alone = tmp_path / "new" / "outputs" / "runs" / "1", tmp_path / "alone"
    for folder in (moved, alone):
        folder.mkdir(parents=True)
    assert base_of(RunFolder(moved), MANIFEST) == tmp_path / "new"
    assert base_of(RunFolder(alone), MANIFEST) == Path.cwd(), "it is foreign"


def test_a_record_names_no_sweep_but_the_folder_above_it(state: Path, tmp_path: Path):
    job, alone = RunFolder(tmp_path / "7" / "0"), RunFolder(tmp_path / "alone")
    for folder in (job, alone):
        folder.path.mkdir(parents=True)
    assert sweep_dir_of(job, MANIFEST) == tmp_path / "7"
    assert sweep_dir_of(alone, MANIFEST) is None, "it is foreign"
    alone.write_manifest(MANIFEST)
    assert sweep_dir_of(alone, MANIFEST) == Path("/there/sweeps/7")
