"""The address of a store: what is refused before anything is sent."""

import os
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import Runner


@pytest.mark.parametrize(
    "uri", ["http://me:planted-word@127.0.0.1:1", "postgresql://me:planted-word@127.0.0.1/x", "ftp://me:planted-word@h"]
)
def test_a_password_in_the_stores_address_is_refused_and_not_repeated(uri: str, tmp_path: Path):
    arguments = ["runner", "provider=echo", "tracking=server", "hydra.run.dir=r2"]
    done = processes.run(arguments, cwd=tmp_path, env=os.environ | {"MLFLOW_TRACKING_URI": uri})
    assert done.returncode == 2
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert "planted-word" not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"planted-word" not in path.read_bytes(), path


@pytest.mark.parametrize("override", ["hydra.run.dir=/proc/x/y", "tracking.uri=sqlite:////proc/x/mlflow.db"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_sent(override: str, run_command: Runner):
    done = run_command("provider=echo", override, track=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "/proc/x" in done.stderr
