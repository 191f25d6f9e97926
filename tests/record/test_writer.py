"""Writes outcomes.jsonl: what was appended is kept, and what cannot be kept is an error."""

import os
import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from runner import app
from runner.errors import JournalError, RunInUseError
from runner.record.folder import LOCK, OUTCOMES, RunFolder
from runner.record.writer import OutcomeWriter
from tests import processes
from tests.conftest import Compose
from tests.factories import completion


def test_an_outcome_is_in_the_file_before_the_next_is_asked_for(tmp_path: Path):
    with OutcomeWriter(RunFolder(tmp_path)) as writer:
        writer.append([completion("a")])
        assert len(list(RunFolder(tmp_path).outcomes.read())) == 1


def test_a_folder_with_outcomes_is_not_written_again(tmp_path: Path):
    with OutcomeWriter(RunFolder(tmp_path)):
        pass
    with pytest.raises(RunInUseError, match="exists already"), OutcomeWriter(RunFolder(tmp_path)):
        pass


def test_an_outcome_that_does_not_fit_on_the_disk_is_an_error(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with OutcomeWriter(RunFolder(tmp_path)) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        try:
            with pytest.raises(JournalError, match=r"outcomes\.jsonl"):
                for number in range(5):
                    writer.append([completion(str(number))])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def turn_into_a_pipe(path: Path) -> int:
    """Let this process's descriptor of a file take bytes and keep none: no pipe can be synced. Return its other end."""
    (open_as,) = [int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and fd.readlink() == path]
    reader, writer = os.pipe()
    os.dup2(writer, open_as)
    os.close(writer)
    return reader


def test_outcomes_that_do_not_reach_the_disk_are_an_error_though_nothing_follows_them(tmp_path: Path):
    reader = -1
    with (
        pytest.raises(JournalError, match=r"outcomes\.jsonl could not be kept on disk"),
        OutcomeWriter(RunFolder(tmp_path)) as writer,
    ):
        reader = turn_into_a_pipe(tmp_path / OUTCOMES)
        writer.append([completion("a")])
    os.close(reader)
    assert not (tmp_path / LOCK).exists()


def test_a_run_whose_last_outcomes_do_not_reach_the_disk_has_failed(config: Compose, tmp_path: Path):
    def spoil() -> None:
        while len(list(RunFolder(tmp_path).outcomes.read())) < 24 - 3:
            time.sleep(0.001)
        readers.append(turn_into_a_pipe(tmp_path / OUTCOMES))

    readers: list[int] = []
    spoiling = threading.Thread(target=spoil)
    spoiling.start()
    overrides = ("provider=echo", "batch.mode=continuous", "batch.size=1", "batch.warmup=0", "provider.latency_s=0.05")
    with pytest.raises(JournalError, match="could not be kept on disk"):
        app.run(config(*overrides, "prompts.limit=24"), tmp_path)
    spoiling.join()
    os.close(readers[0])
    summary = RunFolder(tmp_path).read_summary()
    assert summary is not None
    assert (summary.status, summary.error and summary.error["type"]) == ("FAILED", "JournalError")
    assert summary.metrics["completed_prompts"] >= 21, "what did reach it is counted"


def test_what_a_killed_process_wrote_is_kept(tmp_path: Path):
    done = processes.run(["tests.record.killed_writer", str(tmp_path), "100"], cwd=processes.ROOT)
    assert done.returncode == -signal.SIGKILL
    assert [outcome.prompt_id for outcome in RunFolder(tmp_path).outcomes.read()] == [
        str(number) for number in range(100)
    ]
