"""A disk that takes no more: one message, no traceback, and the run goes on once there is room."""

import json
import resource
from pathlib import Path

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


def test_a_log_that_the_disk_does_not_take_is_no_traceback(tmp_path: Path, run_command: Runner):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "runner.log").symlink_to("/dev/full")
    done = run_command("provider=echo", "provider.fail_on=Write", "hydra.run.dir=r")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "prompts failed" in done.stderr
