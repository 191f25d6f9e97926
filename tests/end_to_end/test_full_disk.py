"""A disk that takes no more: one message, no traceback, and the run goes on once there is room."""

import contextlib
import json
import logging
import resource
from pathlib import Path

import pytest

from runner.cli.terminal import LogFile
from tests import processes
from tests.conftest import Runner


def test_a_full_disk_ends_the_run_and_with_room_it_goes_on(tmp_path: Path):
    arguments = ["runner", "provider=echo", "tracking=off", "hydra.run.dir=r"]
    done = processes.run(arguments, cwd=tmp_path, limits={resource.RLIMIT_FSIZE: 25 * 1024})
    assert done.returncode == 1
    assert "outcomes.jsonl" in done.stderr
    assert "python -m runner.resume" in done.stderr
    assert "Traceback" not in done.stderr
    done = processes.run(["runner.resume", "r"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["metrics"]["completed_prompts"] == 64


def test_a_log_that_the_disk_does_not_take_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    handler = LogFile(str(tmp_path / "runner.log"))
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full:
        opened = handler.setStream(full)
        assert opened is not None
        opened.close()
        handler.handle(logging.makeLogRecord({"msg": "a message " * 10_000}))
    assert capsys.readouterr().err == ""


def test_a_link_in_the_logs_place_is_not_followed(tmp_path: Path, run_command: Runner):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "runner.log").symlink_to(tmp_path / "elsewhere")
    done = run_command("provider=echo", "hydra.run.dir=r")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, "one message, no traceback"
    assert "runner.log" in done.stderr
    assert not (tmp_path / "elsewhere").exists()
