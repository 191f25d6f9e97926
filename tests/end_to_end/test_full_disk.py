"""A disk that takes no more: one message, no traceback, and the run goes on once there is room."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import Runner


def test_a_full_disk_ends_the_run_and_with_room_it_goes_on(tmp_path: Path):
    run = [sys.executable, "-m", "runner", "provider=echo", "tracking=off", "hydra.run.dir=r"]
    script = f"ulimit -f 25; exec {' '.join(run)}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "outcomes.jsonl" in done.stderr
    assert "python -m runner.resume" in done.stderr
    assert "Traceback" not in done.stderr
    resumed = [sys.executable, "-m", "runner.resume", "r"]
    done = subprocess.run(resumed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["metrics"]["completed_prompts"] == 64


def test_a_log_that_the_disk_does_not_take_is_no_traceback(tmp_path: Path, run_command: Runner):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "runner.log").symlink_to("/dev/full")
    done = run_command("provider=echo", "provider.fail_on=Write", "hydra.run.dir=r")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "prompts failed" in done.stderr
