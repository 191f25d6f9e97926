"""outcomes.jsonl: what is written is what is read, and what is there is not written over."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import app
from runner.errors import JournalError, RunInUseError
from runner.record.atomic import atomic_write
from runner.record.folder import LOCK, OUTCOMES, RunFolder
from runner.record.writer import OutcomeWriter
from runner.types import Completion, ErrorInfo, Failure, Timing, Usage
from tests.conftest import Compose
from tests.factories import completion, failure

seconds = st.floats(min_value=0, max_value=1e6)
texts = st.text(st.characters(), max_size=200)  # surrogates, NUL and control characters included
timings = st.builds(
    Timing,
    started_at=st.datetimes(timezones=st.just(UTC)),
    latency_s=seconds,
    time_to_first_token_s=st.none() | seconds,
)
shared = {
    "prompt_id": texts, "timing": timings, "model": texts, "choice": st.integers(0, 9), "attempts": st.integers(1, 9),
    "batch": st.integers(0, 10**6),
}  # fmt: skip
completions = st.builds(
    Completion, **shared, text=texts, finish_reason=st.sampled_from(["stop", "length", "unknown"]),
    usage=st.builds(Usage, input_tokens=st.integers(0, 10**6), output_tokens=st.integers(0, 10**6)),
)  # fmt: skip
failures = st.builds(Failure, **shared, error=st.builds(ErrorInfo, type=texts, message=texts, retryable=st.booleans()))


@given(st.lists(completions | failures, max_size=5))
def test_outcomes_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[Completion | Failure]
):
    folder = tmp_path_factory.mktemp("journal")
    with OutcomeWriter(RunFolder(folder)) as journal:
        for outcome in outcomes:
            journal.append([outcome])
    assert list(RunFolder(folder).outcomes.read()) == outcomes
    assert (folder / OUTCOMES).read_bytes().count(b"\n") == len(outcomes), "one line per outcome"


def test_a_line_has_the_fields_of_the_contract(tmp_path: Path):
    with OutcomeWriter(RunFolder(tmp_path)) as journal:
        journal.append([completion("a", text="héllo 日本")])
        journal.append([failure("b")])
    first, second = map(json.loads, (tmp_path / OUTCOMES).read_text(encoding="utf-8").splitlines())
    fields = (
        "prompt_id choice segment batch text finish_reason input_tokens output_tokens latency_s time_to_first_token_s"
    )
    assert list(first) == list(second) == [*fields.split(), "attempts", "started_at", "model", "error"]
    assert first["error"] is None
    assert second["error"] == {"type": "Refused", "message": "no", "retryable": False}
    assert second["text"] is None, "a failure has no text, not even an empty one"
    assert "日本" in (tmp_path / OUTCOMES).read_text(encoding="utf-8"), "a person can read it"


def test_an_outcome_is_in_the_file_before_the_next_is_asked_for(tmp_path: Path):
    with OutcomeWriter(RunFolder(tmp_path)) as journal:
        journal.append([completion("a")])
        assert len(list(RunFolder(tmp_path).outcomes.read())) == 1


def test_a_folder_with_outcomes_is_not_written_again(tmp_path: Path):
    with OutcomeWriter(RunFolder(tmp_path)):
        pass
    with pytest.raises(RunInUseError, match="exists already"), OutcomeWriter(RunFolder(tmp_path)):
        pass


def test_an_outcome_that_does_not_fit_on_the_disk_is_an_error(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with OutcomeWriter(RunFolder(tmp_path)) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        try:
            with pytest.raises(JournalError, match=r"outcomes\.jsonl"):
                for number in range(5):
                    journal.append([completion(str(number))])
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
        OutcomeWriter(RunFolder(tmp_path)) as journal,
    ):
        reader = turn_into_a_pipe(tmp_path / OUTCOMES)
        journal.append([completion("a")])
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
    summary = read_summary(tmp_path)
    assert summary is not None
    assert (summary.status, summary.error and summary.error["type"]) == ("FAILED", "JournalError")
    assert summary.metrics["completed_prompts"] >= 21, "what did reach it is counted"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path):
    os.mkfifo(tmp_path / ".summary.json.new")  # what is no file cannot be synced
    reader = os.open(tmp_path / ".summary.json.new", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(JournalError, match=r"summary\.json cannot be written"):
        atomic_write(tmp_path / "summary.json", b"{}")
    os.close(reader)
    assert not (tmp_path / "summary.json").exists()


@given(outcomes=st.lists(completions | failures, min_size=1, max_size=4), data=st.data())
def test_any_prefix_of_a_journal_reads_as_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[Completion | Failure], data: st.DataObject
):
    folder = tmp_path_factory.mktemp("torn")
    with OutcomeWriter(RunFolder(folder)) as journal:
        for outcome in outcomes:
            journal.append([outcome])
    whole = (folder / OUTCOMES).read_bytes()
    kept = whole[: data.draw(st.integers(0, len(whole)))]
    (folder / OUTCOMES).write_bytes(kept)
    assert list(RunFolder(folder).outcomes.read()) == outcomes[: kept.count(b"\n")]


def test_a_line_that_is_no_outcome_is_named(tmp_path: Path):
    with OutcomeWriter(RunFolder(tmp_path)) as journal:
        journal.append([completion("a")])
    with (tmp_path / OUTCOMES).open("ab") as file:
        file.write(b'{"prompt_id": "b"}\n')
    with pytest.raises(JournalError, match="line 2: not an outcome"):
        list(RunFolder(tmp_path).outcomes.read())


def test_what_a_killed_process_wrote_is_kept(tmp_path: Path):
    code = (
        "import os, signal, sys; from pathlib import Path; from runner.journal import OutcomeWriter; from tests.outcomes import completion\n"
        "with OutcomeWriter(Path(sys.argv[1])) as journal:\n"
        "    [journal.append([completion(str(number))]) for number in range(100)]\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [outcome.prompt_id for outcome in RunFolder(tmp_path).outcomes.read()] == [
        str(number) for number in range(100)
    ]
