"""A process forked from the server of `tests.processes` is what `python -m` is; and each command starts cold."""

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from runner.record.folder import OUTCOMES
from tests import processes

CHILD = """
import json, logging, os, resource, signal, sys, threading
facts = {
    "pid": os.getpid(), "session": os.getsid(0), "cwd": os.getcwd(), "argv": sys.argv, "path": sys.path[0],
    "name": __name__, "main": sys.modules["__main__"].__file__, "variables": dict(os.environ),
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "terminate": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    "threads": threading.active_count(), "handlers": len(logging.getLogger().handlers),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
    "size": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
}
print(json.dumps(facts))
"""


def child(folder: Path, code: str) -> list[str]:
    (folder / "child.py").write_text(code)
    return ["child"]


def facts(folder: Path, **options: Any) -> dict[str, Any]:
    done = processes.run(child(folder, CHILD), cwd=folder, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout))


def test_a_forked_process_has_its_own_pid_folder_variables_and_limits(tmp_path: Path):
    first = facts(tmp_path, env=os.environ | {"ONLY": "here"}, limits={resource.RLIMIT_FSIZE: 12345})
    second = facts(tmp_path)
    assert len({first["pid"], second["pid"], os.getpid()}) == 3
    assert (first["variables"]["ONLY"], first["size"]) == ("here", 12345)
    assert "ONLY" not in second["variables"]


def test_a_forked_process_is_as_a_new_one(tmp_path: Path):
    forked, cold = facts(tmp_path), facts(tmp_path, cold=True)
    for own in ("pid", "session"):
        assert forked.pop(own) != cold.pop(own) or own == "session"
    assert len(forked.pop("descriptors")) <= len(cold.pop("descriptors")), "it holds no pipe of another process"
    assert forked == cold


def test_a_process_in_which_an_interpreters_own_variable_differs_is_started_anew(tmp_path: Path):
    done = processes.run(
        child(tmp_path, "print('\\u00e9')"), cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": "ascii:backslashreplace"}
    )  # fmt: skip
    assert done.stdout == "\\xe9\n"


@pytest.mark.parametrize(
    ("code", "returncode", "errors"),
    [
        ("", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('a message')", 1, "a message\n"),
        ("raise ValueError('a defect')", 1, "ValueError: a defect\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt\n"),
        ("import atexit, sys; atexit.register(lambda: print('last', file=sys.stderr))", 0, "last\n"),
    ],
)
def test_a_forked_process_ends_as_a_new_one(code: str, returncode: int, errors: str, tmp_path: Path):
    done = processes.run(child(tmp_path, code), cwd=tmp_path)
    assert done.returncode == returncode
    assert done.stderr.endswith(errors)
    assert ("Traceback" in done.stderr) == ("raise" in code)


def test_a_process_is_killed_and_waited_for(tmp_path: Path):
    waiting = child(tmp_path, "import time; print('begun', flush=True); time.sleep(60)")
    with processes.start(waiting, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.kill()
        assert process.wait(5) == -signal.SIGKILL == process.poll()


def test_a_process_that_takes_too_long_is_killed(tmp_path: Path):
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(child(tmp_path, "import time; time.sleep(60)"), cwd=tmp_path, timeout=0.3)
    assert time.monotonic() - start < 30


def test_a_wrong_request_is_answered_as_from_a_cold_start(tmp_path: Path):
    forked, cold = (processes.run(["runner", "batch.sise=4"], cwd=tmp_path, cold=cold) for cold in (False, True))
    assert (forked.returncode, forked.stdout, forked.stderr) == (2, cold.stdout, cold.stderr)


@pytest.mark.parametrize("command", ["runner", "runner.plan", "runner.models", "runner.resume", "runner.compare"])
def test_each_command_starts_cold(command: str, tmp_path: Path):
    done = processes.run([command, "--help"], cwd=tmp_path, cold=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert command in done.stdout


def test_a_run_starts_cold(tmp_path: Path):
    arguments = ["provider=echo", "tracking=off", "hydra.run.dir=r"]
    done = processes.run(["runner", *arguments], cwd=tmp_path, cold=True)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "r" / OUTCOMES).read_text().splitlines()) == 64
