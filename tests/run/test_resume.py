"""`app.resume` and `python -m runner.resume` generate what is missing and keep what is there."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from runner import app
from runner.errors import JournalError, RecordError, RunInUseError, RunnerError
from runner.record.folder import LOCK, OUTCOMES, SEGMENTS, SUMMARY, RunFolder
from runner.record.lock import SYSTEM_LOCK
from runner.record.repair import DAMAGED
from runner.record.writer import OutcomeWriter
from runner.types import Completion, ErrorInfo, Failure, Outcome
from tests import processes
from tests.conftest import Compose
from tests.run.running import Running
from tests.servers.openai_server import OpenAIServer

MODES = [(mode, n) for mode in ("concurrent", "continuous", "static") for n in (1, 2)]
Texts = set[tuple[str, int, str]]


@dataclass(frozen=True)
class Finished:
    """Finished echo runs of ten prompts, by mode and answers a prompt; each example goes on with a copy."""

    folder: Path

    def copy(self, mode: str, n: int, lines: bytes) -> Path:
        copied = self.folder / f"{mode}-{n}-copy"
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(self.folder / f"{mode}-{n}", copied)
        (copied / OUTCOMES).write_bytes(lines)
        (copied / SUMMARY).unlink()  # as a process that was killed leaves it
        return copied

    def lines(self, mode: str, n: int) -> bytes:
        return (self.folder / f"{mode}-{n}" / OUTCOMES).read_bytes()

    def outcomes(self, mode: str, n: int) -> list[Outcome]:
        return list(RunFolder(self.folder / f"{mode}-{n}").outcomes.read())


@pytest.fixture(scope="module")
def finished(config: Compose, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "p.txt").write_text("".join(f"prompt {'number ' * (number % 4)}{number}\n" for number in range(10)))
    for mode, n in MODES:
        settings = (f"batch.mode={mode}", f"generation.n={n}", "batch.size=3", "batch.warmup=0")
        source = ("prompts=file", f"prompts.path={folder / 'p.txt'}")
        app.run(config("provider=echo", *settings, *source), folder / f"{mode}-{n}")
    return Finished(folder)


def texts(outcomes: Iterable[Outcome]) -> Texts:
    answers = [(o.prompt_id, o.choice, o.text) for o in outcomes if isinstance(o, Completion)]
    assert len({(prompt_id, choice) for prompt_id, choice, _ in answers}) == len(answers), (
        "one answer a prompt and choice"
    )
    return set(answers)


def failed(outcome: Outcome) -> Failure:
    error = ErrorInfo(type="Sometimes", message="not this time", retryable=True)
    return Failure(prompt_id=outcome.prompt_id, timing=outcome.timing, model="m", batch=outcome.batch, error=error)


@settings(max_examples=40)
@given(case=st.sampled_from(MODES), share=st.floats(0, 1), torn=st.booleans())
@example(case=("concurrent", 2), share=0.0, torn=False)
@example(case=("static", 2), share=1.0, torn=False)
def test_any_prefix_of_the_outcomes_resumes_to_the_same_final_set(
    finished: Finished, case: tuple[str, int], share: float, torn: bool
):
    whole = finished.lines(*case)
    cut = round(share * len(whole))
    prefix = whole[:cut] if torn else whole[: whole.rfind(b"\n", 0, cut) + 1] if cut < len(whole) else whole
    run = finished.copy(*case, prefix)
    summary = app.resume(run)
    assert texts(RunFolder(run).outcomes.read()) == texts(finished.outcomes(*case))
    assert (summary.status, summary.metrics["completed_prompts"]) == ("FINISHED", 10)
    kept = prefix[: prefix.rfind(b"\n") + 1]
    written = (run / OUTCOMES).read_bytes()
    assert written.startswith(kept), "what was whole is as it was"
    records = [json.loads(line) for line in written.splitlines()]
    assert {record["segment"] for record in records[kept.count(b"\n") :]} <= {1 if kept else 0}
    again = (run / OUTCOMES).stat()
    app.resume(run)
    assert (run / OUTCOMES).stat().st_size == again.st_size, "nothing is left to generate"


@settings(max_examples=25)
@given(
    case=st.sampled_from(MODES), fates=st.lists(st.sampled_from(["done", "failed", "absent"]), min_size=10, max_size=10)
)
def test_failures_are_tried_again_and_superseded_or_kept_as_they_are(
    finished: Finished, case: tuple[str, int], fates: list[str]
):
    fate_of = dict(zip(sorted({outcome.prompt_id for outcome in finished.outcomes(*case)}), fates, strict=True))
    run = finished.copy(*case, b"")
    with OutcomeWriter(RunFolder(run), resume=True) as writer:
        for prompt_id, group in itertools.groupby(finished.outcomes(*case), key=lambda outcome: outcome.prompt_id):
            answers = list(group)
            if fate_of[prompt_id] != "absent":
                writer.append(answers if fate_of[prompt_id] == "done" else [failed(answers[0])])
    failures = fates.count("failed")
    if failures < 10:
        kept = app.resume(run, keep_failures=True)
        assert {o.prompt_id for o in RunFolder(run).outcomes.read() if isinstance(o, Failure)} == {
            prompt_id for prompt_id, fate in fate_of.items() if fate == "failed"
        }
        assert (kept.metrics["failed_prompts"], kept.metrics["completed_prompts"]) == (failures, 10 - failures)
        assert kept.exit_code == (1 if failures else 0)
    summary = app.resume(run)
    assert (summary.metrics["failed_prompts"], summary.exit_code) == (0, 0)
    assert texts(RunFolder(run).outcomes.read()) == texts(finished.outcomes(*case))
    assert not [o for o in RunFolder(run).outcomes.read() if isinstance(o, Failure)]
    assert (run / OUTCOMES).read_bytes().count(b"not this time") == failures, "history stays in the file"


def test_what_failed_and_was_tried_again_took_its_time(config: Compose, tmp_path: Path):
    refuse = {"status": 503, "body": {}}
    with OpenAIServer(
        first_token_s=0.1, fault=lambda number, _: {"hang": 1.0} | refuse if number < 12 else None
    ) as server:
        where = (f"provider.base_url={server.url}/v1", "provider.api_key_env=null", "limits.max_attempts=1")
        first = app.run(config("provider=openai", "prompts.limit=16", "batch.size=4", *where), tmp_path)
        assert first.metrics["failed_prompts"] == 12
        (tmp_path / SUMMARY).unlink()
        second = app.resume(tmp_path)
        again = app.resume(tmp_path)
    assert second.metrics["completed_prompts"] == 16
    assert second.metrics["duration_s"] > first.metrics["duration_s"] > 3
    assert second.metrics["prompts_per_s"] == pytest.approx(16 / second.metrics["duration_s"])
    assert second.metrics["overhead_s"] <= second.metrics["duration_s"]
    assert again.metrics == second.metrics
    (tmp_path / SEGMENTS).unlink()  # as if each process had been killed
    (tmp_path / SUMMARY).unlink()
    rebuilt_s = app.resume(tmp_path).metrics["duration_s"]
    assert 3 < rebuilt_s < second.metrics["duration_s"] + 0.1, "from the first outcome to the last, the failed ones too"


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def resume_command(tmp_path: Path) -> Command:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return processes.run(["runner.resume", *arguments], cwd=tmp_path)

    return run


@pytest.fixture
def half(config: Compose, tmp_path: Path) -> Path:
    """A run of ten prompts from a file, of which five are done."""
    (tmp_path / "p.txt").write_text("".join(f"text {number}\n" for number in range(10)))
    app.run(config("provider=echo", "prompts=file", f"prompts.path={tmp_path / 'p.txt'}"), tmp_path / "run")
    outcomes = tmp_path / "run" / OUTCOMES
    outcomes.write_bytes(b"".join(outcomes.read_bytes().splitlines(keepends=True)[:5]))
    return tmp_path / "run"


def test_a_changed_prompt_file_is_refused_with_the_difference(half: Path, resume_command: Command):
    prompts = half.parent / "p.txt"
    prompts.write_text(prompts.read_text().replace("text 3\n", "other 3\n") + "one more\n")
    before = {path.name: path.read_bytes() for path in half.iterdir()}
    done = resume_command("run")
    assert done.returncode == 2
    assert "prompt '3' was 'text 3' and is 'other 3'" in done.stderr
    assert "prompt '10' is new: 'one more'" in done.stderr
    assert "Traceback" not in done.stderr
    assert {name: (half / name).read_bytes() for name in before} == before, "the record is as it was"


def test_a_changed_config_is_refused_with_the_difference(half: Path, resume_command: Command):
    text = (half / "config.yaml").read_text()
    (half / "config.yaml").write_text(text.replace("max_tokens: 64", "max_tokens: 65"))
    done = resume_command("run")
    assert done.returncode == 2
    assert "generation.max_tokens=64, and now 65" in done.stderr
    assert "Traceback" not in done.stderr


def test_changed_prompts_in_the_record_itself_are_refused(half: Path):
    (half / "prompts.jsonl").write_bytes((half / "prompts.jsonl").read_bytes().replace(b"text 3", b"text 4"))
    with pytest.raises(RecordError, match=r"other prompts.*prompts\.jsonl"):
        app.resume(half)


@pytest.mark.parametrize("damage", [b"", b'{"status": "FIN', b"[]"], ids=["empty", "torn", "other"])
def test_files_that_can_be_made_again_may_be_damaged(half: Path, damage: bytes):
    """As a machine leaves them that died: named, and without what was in them."""
    for name in ("summary.json", "tracking.json", "environment.json", "segments.json"):
        (half / name).write_bytes(damage)
    assert app.resume(half).metrics["completed_prompts"] == 10
    assert RunFolder(half).read_summary() is not None


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
@pytest.mark.parametrize("damage", [b"", b'{"key": "ab', b"[]"], ids=["empty", "torn", "other"])
def test_a_damaged_file_that_says_what_was_asked_for_is_one_message(
    name: str, damage: bytes, half: Path, resume_command: Command
):
    (half / name).write_bytes(damage)
    done = resume_command("run")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {half / name} cannot be read: "), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_lost_copy_of_the_prompts_is_one_message(half: Path):
    (half / "prompts.jsonl").unlink()
    with pytest.raises(RecordError, match=r"prompts\.jsonl cannot be read: No such file.*restore it"):
        app.resume(half)


def test_a_line_without_the_fields_of_an_outcome_is_named(half: Path):
    with (half / "outcomes.jsonl").open("a") as file:
        file.write('{"segment": 0}\n')
    number = len((half / "outcomes.jsonl").read_text().splitlines())
    with pytest.raises(JournalError, match=rf"line {number}: not an outcome .*prompt_id"):
        app.resume(half)


@pytest.mark.parametrize(
    "damage", [b'{"prompt_id": "2", "segment"', b"\0\0\0", b'{"segment": 0}', b"[[1]]", b"\xff"], ids=repr
)
def test_a_damaged_line_is_set_aside_on_request_and_its_prompt_generated_again(
    damage: bytes, half: Path, resume_command: Command
):
    lines = (half / OUTCOMES).read_bytes().splitlines(keepends=True)
    lines[2] = damage + b"\n"
    (half / OUTCOMES).write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match=rf"line 3: not an outcome .*runner.resume {half} --repair"):
        app.resume(half)
    assert (half / OUTCOMES).read_bytes() == b"".join(lines)
    assert app.resume(half, repair=True).metrics["completed_prompts"] == 10
    assert (half / DAMAGED).read_bytes() == lines[2]
    kept = (half / OUTCOMES).read_bytes()
    assert kept.startswith(b"".join(lines[:2] + lines[3:]))
    assert len({outcome.prompt_id for outcome in RunFolder(half).outcomes.read()}) == 10


def test_the_command_names_the_line_that_it_sets_aside(half: Path, resume_command: Command):
    (half / OUTCOMES).write_bytes(b"nonsense\n" + (half / OUTCOMES).read_bytes())
    assert "--repair" in resume_command("run").stderr
    done = resume_command("run", "--repair")
    assert done.returncode == 0, done.stderr
    assert "line 1: not an outcome" in done.stderr
    assert "set aside into outcomes.damaged.jsonl" in done.stderr


def test_without_its_prompt_file_a_run_goes_on_from_its_own_copy(half: Path, caplog: pytest.LogCaptureFixture):
    (half.parent / "p.txt").unlink()
    assert app.resume(half).metrics["completed_prompts"] == 10
    assert "using the run's own copy" in caplog.text


def test_a_folder_that_is_no_run_is_one_message(resume_command: Command, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "no/such/folder"):
        done = resume_command(name)
        assert done.returncode == 2
        assert name in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_a_folder_in_use_is_refused_and_its_process_is_named(half: Path, resume_command: Command):
    with OutcomeWriter(RunFolder(half), resume=True) as writer:
        done = resume_command("run")
        host = os.uname().nodename
        assert done.returncode == 2
        assert f"is being written by process {os.getpid()} on host {host}" in done.stderr
        assert "Traceback" not in done.stderr
        assert writer.segment == 1
    assert app.resume(half).metrics["completed_prompts"] == 10


@pytest.fixture
def service(config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    """A service that a run in `run` was interrupted on: 12 of its 24 prompts are done."""
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    with OpenAIServer() as server:
        where = ("provider=openai", f"provider.base_url={server.url}/v1", "batch.size=4", "prompts.limit=24")
        app.run(config(*where), tmp_path / "run")
        outcomes = tmp_path / "run" / OUTCOMES
        outcomes.write_bytes(b"".join(outcomes.read_bytes().splitlines(keepends=True)[:12]))
        summary = json.loads((tmp_path / "run" / SUMMARY).read_text())
        summary |= {"status": "KILLED", "metrics": {"completed_prompts": 12, "failed_prompts": 0}}
        (tmp_path / "run" / SUMMARY).write_text(json.dumps(summary))
        yield server


def test_a_resume_that_cannot_begin_leaves_the_record_as_it_was(
    service: OpenAIServer, resume_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OPENAI_API_KEY")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in (SUMMARY, OUTCOMES)}
    done = resume_command("run")
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before


def test_a_resume_that_the_service_refuses_reports_what_there_is(
    service: OpenAIServer, resume_command: Command, tmp_path: Path
):
    service.fault = lambda *_: {"status": 401, "body": {"error": {"message": "Incorrect API key provided"}}}
    done = resume_command("run")
    assert done.returncode == 1, "something was answered, and is paid for"
    assert "Incorrect API key" in done.stderr
    assert "to finish the run: python -m runner.resume run\n" in done.stderr
    summary = RunFolder(tmp_path / "run").read_summary()
    assert summary is not None
    assert (summary.status, summary.metrics["completed_prompts"]) == ("FAILED", 12)


def test_a_refusal_while_others_are_answered_is_no_wrong_request(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    refusal = {"status": 403, "body": {"error": {"message": "not for you"}}}
    with OpenAIServer(first_token_s=0.5, fault=lambda number, _: refusal if number == 0 else None) as server:
        where = (f"provider.base_url={server.url}/v1", "batch.size=3")
        with pytest.raises(RunnerError, match="not for you") as caught:
            app.run(config("provider=openai", *where), tmp_path)
    assert caught.value.exit_code == 1
    summary = RunFolder(tmp_path).read_summary()
    assert summary is not None
    assert summary.metrics["completed_prompts"] == len(server.asked) - 1 > 0


def test_a_share_of_failures_is_judged_over_the_whole_record(config: Compose, tmp_path: Path):
    poison = {"status": 400, "body": {"error": {"message": "not that one"}}}
    texts = [*(f"text {number}" for number in range(117)), *(f"poison {number}" for number in range(3))]
    (tmp_path / "p.txt").write_text("\n".join(texts))
    with OpenAIServer(fault=lambda _, body: poison if "poison" in body["messages"][-1]["content"] else None) as server:
        source = ("prompts=file", f"prompts.path={tmp_path / 'p.txt'}", "limits.max_failures=0.1", "batch.size=4")
        where = (f"provider.base_url={server.url}/v1", "provider.api_key_env=null")
        assert app.run(config("provider=openai", *source, *where), tmp_path / "run").status == "FINISHED"
        for _ in range(2):
            again = app.resume(tmp_path / "run")
            assert (again.status, again.metrics["failed_prompts"]) == ("FINISHED", 3)


def test_another_environment_is_named_and_both_are_kept(
    half: Path, resume_command: Command, caplog: pytest.LogCaptureFixture
):
    assert "the environment has changed" not in resume_command("run").stderr
    outcomes, path = half / OUTCOMES, half / "environment.json"
    outcomes.write_bytes(b"".join(outcomes.read_bytes().splitlines(keepends=True)[:8]))
    before = json.loads(path.read_text())
    before["packages"]["numpy"], before["git"] = "0.1", {"commit": "f00", "dirty": False}
    path.write_text(json.dumps(before))
    messages = resume_command("run").stderr
    assert "the environment has changed" in messages
    assert "packages.numpy: 0.1 before, " in messages
    assert "git.commit: f00 before, " in messages
    assert "python: " not in messages
    assert json.loads((half / "environment.1.json").read_text()) == before
    assert json.loads(path.read_text())["packages"]["numpy"] != "0.1"


def test_the_printed_command_can_be_pasted(config: Compose, tmp_path: Path):
    """Where it was given, which is not where the run began; and whatever the folder is called."""
    for name in ("began", "elsewhere"):
        (tmp_path / name).mkdir()
    overrides = ["provider=echo", "provider.fail_on=Write", "tracking=off"]
    done = processes.run(["runner", *overrides, "hydra.run.dir='it is; mine'"], cwd=tmp_path / "began")
    assert "python -m runner.resume 'it is; mine'\n" in done.stderr
    run = tmp_path / "began" / "it is; mine"
    for where in ("elsewhere", "began"):
        done = processes.run(["runner.resume", str(run)], cwd=tmp_path / where)
        (line,) = [line for line in done.stderr.splitlines() if "python -m runner.resume" in line]
        pasted = line.partition(": ")[2].partition(": ")[2].replace("python", sys.executable, 1)
        done = subprocess.run(pasted, shell=True, cwd=tmp_path / where, capture_output=True, text=True, check=False)  # noqa: S602
        assert "prompts are completed" in done.stderr, (pasted, done.stderr)


@pytest.mark.parametrize("left", ["by a killed process", "before it had a name in it"])
def test_a_lock_that_was_left_behind_is_taken_over(left: str, half: Path):
    if left == "by a killed process":
        killed = processes.run(["tests.record.killed_writer", str(half), "0"], cwd=processes.ROOT)
        assert killed.returncode == -signal.SIGKILL
    else:
        (half / LOCK).touch()
    assert (half / LOCK).exists()
    assert app.resume(half).metrics["completed_prompts"] == 10
    assert not (half / LOCK).exists()


@pytest.mark.parametrize("state", ["dead", "alive", "of another version", "of another machine"])
def test_the_lock_of_another_container_is_taken_over_only_if_its_process_is_gone(state: str, half: Path):
    """A container has its own host name. The kernel, and so the boot id in the third line, is the machine's."""
    with OutcomeWriter(RunFolder(half), resume=True):
        pid, _, token, *_ = (half / LOCK).read_text().split("\n")
        if state == "of another machine":
            token = str(int(token) ^ (1 << 100))
        for name in (LOCK, SYSTEM_LOCK):
            (half / name).write_text(f"{pid}\ncontainer\n{token}\n")
        if state == "alive":
            with pytest.raises(RunInUseError, match=rf"process {pid} on host container.*remove {half / LOCK}"):
                app.resume(half)
            return
        left = {name: (half / name).read_text() for name in (LOCK, SYSTEM_LOCK)}
    for name, text in left.items():
        (half / name).write_text(text)
    if state == "of another version":
        (half / SYSTEM_LOCK).unlink()
    if state == "dead":
        assert app.resume(half).metrics["completed_prompts"] == 10
        assert not (half / LOCK).exists()
    else:
        with pytest.raises(RunInUseError, match="on host container"):
            app.resume(half)


@pytest.mark.parametrize(
    ("sweep", "signalled", "track"),
    [(False, signal.SIGINT, False), (True, signal.SIGINT, True), (False, signal.SIGTERM, False)],
)
def test_an_interrupt_sends_nothing_more_keeps_what_is_in_flight_and_can_be_resumed(
    sweep: bool, signalled: signal.Signals, track: bool, tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    name = f"interrupted-{sweep}-{signalled.name}"
    arguments = [f"name={name}", f"tracking.uri={store}" if track else "tracking=off", "prompts.limit=24"]
    arguments = ["-m", *arguments, "seed=1,2", "hydra.sweep.dir=r"] if sweep else [*arguments, "hydra.run.dir=r/0"]
    run = tmp_path / "r" / "0"
    with OpenAIServer(first_token_s=1.0) as server:
        running = Running(tmp_path, server, *arguments)
        running.wait_for_requests(8)  # four have their answer, four are in flight
        running.process.send_signal(signalled)
        running.wait_for_message("stopping: waiting up to")
        assert running.end() == 130, running.messages
        assert len(server.asked) == 8, "nothing more was sent"
        assert "python -m runner.resume r/0" in running.messages
        summary = RunFolder(run).read_summary()
        assert summary is not None
        assert (summary.status, summary.error and summary.error["type"]) == ("KILLED", "Interrupted")
        assert summary.metrics["completed_prompts"] == 8, "what was in flight is kept"
        assert summary.metrics["duration_s"] > 1
        assert not (tmp_path / "r" / "1").exists(), "an interrupt ends the sweep, not only the job"
        if track:
            assert statuses(store, name) == ["KILLED"] * (2 if sweep else 1)
        server.first_token_s = 0.0
        resumed = app.resume(run)
        assert len(server.asked) == 24
    assert (resumed.status, resumed.metrics["completed_prompts"]) == ("FINISHED", 24)
    assert resumed.summary.mlflow_run_id == summary.mlflow_run_id
    if track:
        assert sorted(statuses(store, name)) == ["FINISHED", *(["KILLED"] if sweep else [])]


def statuses(store: str, name: str) -> list[str]:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


def test_a_second_interrupt_ends_at_once_with_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    with OpenAIServer(fault=lambda number, _: {"hang": 600} if number >= 8 else None) as server:
        running = Running(tmp_path, server, "tracking=off", "prompts.limit=24", "hydra.run.dir=r")
        running.wait_for_requests(12)
        running.process.send_signal(signal.SIGINT)
        running.wait_for_message("stopping: waiting up to")
        time.sleep(1.0)  # nearer signals count as one
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 130, running.messages  # in less than the time that what is in flight is given
        assert (tmp_path / "r" / OUTCOMES).read_bytes().endswith(b"\n")
        assert len(list(RunFolder(tmp_path / "r").outcomes.read())) == 8
        summary = RunFolder(tmp_path / "r").read_summary()
        assert summary is not None
        assert (summary.status, summary.metrics["completed_prompts"]) == ("KILLED", 8)
        assert "python -m runner.resume r\n" in running.messages
        assert not (tmp_path / "r" / LOCK).exists()
        server.fault = lambda *_: None
        asked = len(server.asked)
        assert app.resume(tmp_path / "r").metrics["completed_prompts"] == 24
        assert len(server.asked) - asked == 16
