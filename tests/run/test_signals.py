"""Real signals to real processes, in the ways in which they come; and a run whose output nobody reads any more."""

import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner import app
from runner.config.waits import Waits
from runner.errors import Interrupted
from runner.record.folder import OUTCOMES, SUMMARY, RunFolder
from runner.run.result import OnOutcomes, RunResult, SilentObserver
from tests.conftest import Compose
from tests.factories import summary_of
from tests.run.running import Running
from tests.servers.openai_server import OpenAIServer

SHORT = Waits(grace_s=2.0)
ARGUMENTS = ("tracking=off", "prompts.limit=24", "hydra.run.dir=r")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    with OpenAIServer(first_token_s=1.0) as made:
        yield made


def assert_closed(run: Path, *, completed: int) -> None:
    summary = summary_of(run)
    assert (summary.status, summary.error and summary.error["type"]) == ("KILLED", "Interrupted")
    assert summary.metrics["completed_prompts"] == completed == len(list(RunFolder(run).outcomes.read()))


@pytest.mark.parametrize("gone", ["pipe", "terminal"])
def test_a_run_whose_reader_is_gone_goes_on_and_is_closed(gone: str, server: OpenAIServer, tmp_path: Path):
    if gone == "pipe":
        running = Running(tmp_path, server, *ARGUMENTS, stdout=subprocess.PIPE)
        ends = [running.process.stdout, running.process.stderr]
    else:
        terminal, child_side = pty.openpty()
        running = Running(tmp_path, server, *ARGUMENTS, stdout=child_side, stderr=child_side)
        os.close(child_side)
        ends = [os.fdopen(terminal)]
    running.wait_for_requests(8)
    for end in ends:
        assert end is not None
        end.close()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(25) == 130
    assert_closed(tmp_path / "r", completed=8)


def test_a_run_whose_reader_is_gone_ends_as_any_other(server: OpenAIServer, tmp_path: Path):
    server.first_token_s = 0.2
    running = Running(tmp_path, server, *ARGUMENTS, stdout=subprocess.PIPE)
    assert running.process.stdout is not None
    assert running.process.stderr is not None
    running.wait_for_requests(8)
    running.process.stdout.close()
    running.process.stderr.close()
    assert running.process.wait(25) == 0
    assert summary_of(tmp_path / "r").status == "FINISHED"


def test_two_signals_at_once_count_as_one(server: OpenAIServer, tmp_path: Path):
    running = Running(tmp_path, server, *ARGUMENTS)
    running.wait_for_requests(8)
    running.process.send_signal(signal.SIGTERM)  # timeout(1) signals its child, then the child's group
    time.sleep(0.02)
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 130, running.messages
    assert_closed(tmp_path / "r", completed=8)


def test_two_signals_at_once_with_nothing_in_flight_leave_the_record_closed(tmp_path: Path):
    with OpenAIServer(fault=lambda *_: {"status": 429, "headers": {"retry-after": "60"}, "body": {}}) as server:
        running = Running(tmp_path, server, *ARGUMENTS, "provider.api_key_env=null")
        running.wait_for_requests(1)  # whose answer may hold the other three back for a minute
        time.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_message("stopping: waiting up to")
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 130, running.messages
    assert "completed_prompts" in summary_of(tmp_path / "r").metrics


def test_the_first_interrupt_of_a_run_that_is_stopping_already_keeps_what_is_in_flight(
    server: OpenAIServer, tmp_path: Path
):
    server.fault = lambda number, _: {"hang": 0.5, "status": 400, "body": {}} if number == 0 else None
    server.first_token_s = 3.0
    running = Running(tmp_path, server, *ARGUMENTS, "limits.max_failures=0")
    running.wait_for_requests(4)
    while not (tmp_path / "r" / OUTCOMES).read_bytes():
        time.sleep(0.005)
    time.sleep(0.3)
    running.process.send_signal(signal.SIGINT)
    running.wait_for_message("stopping: waiting up to")
    assert running.end() == 130, running.messages
    summary = summary_of(tmp_path / "r")
    assert summary.metrics["completed_prompts"] == len(server.asked) - 1 >= 3
    assert summary.error is not None
    assert "limits.max_failures=0" in summary.error["message"], "the reason before is not lost"


def test_requests_in_flight_for_longer_than_the_grace_period_are_cancelled(server: OpenAIServer, tmp_path: Path):
    server.fault, server.first_token_s = lambda number, _: {"hang": 600} if number >= 8 else None, 0.0
    running = Running(tmp_path, server, "tracking=off", "prompts.limit=24", waits=SHORT)
    running.wait_for_requests(12)
    running.process.send_signal(signal.SIGTERM)
    running.wait_for_message("after 2 s: requests still in flight are cancelled")
    assert running.end() == 130, running.messages
    assert_closed(tmp_path / "r", completed=8)
    assert summary_of(tmp_path / "r").metrics["duration_s"] > SHORT.grace_s
    assert "python -m runner.resume r\n" in running.messages
    server.fault = lambda *_: None
    asked = len(server.asked)
    assert app.resume(tmp_path / "r").metrics["completed_prompts"] == 24
    assert len(server.asked) - asked == 16


def test_a_terminal_that_goes_is_a_request_to_end(server: OpenAIServer, tmp_path: Path):
    running = Running(tmp_path, server, *ARGUMENTS)
    running.wait_for_requests(8)
    running.process.send_signal(signal.SIGHUP)
    assert running.end() == 130, running.messages
    assert_closed(tmp_path / "r", completed=8)


def test_under_nohup_a_terminal_that_goes_is_nothing(server: OpenAIServer, tmp_path: Path):
    server.first_token_s = 0.3
    running = Running(tmp_path, server, *ARGUMENTS, ignored=[signal.SIGHUP])
    running.wait_for_requests(8)
    running.process.send_signal(signal.SIGHUP)
    assert running.end() == 0, running.messages
    assert summary_of(tmp_path / "r").metrics["completed_prompts"] == 24


class SignalAt(SilentObserver):
    """Sends this process a signal at one moment of a run's end."""

    def __init__(self, moment: str) -> None:
        self._moment = moment

    @contextmanager
    def generating(self, total: int, *, completed: int) -> Iterator[OnOutcomes]:
        yield lambda _outcomes: None
        self._send("all prompts answered")

    def finished(self, result: RunResult) -> None:
        self._send("summary written")

    def _send(self, moment: str) -> None:
        if moment == self._moment:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.6)  # nearer signals count as one
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("moment", ["all prompts answered", "summary written"])
def test_signals_while_the_record_is_closed_wait_until_it_is(moment: str, config: Compose, tmp_path: Path):
    before = signal.getsignal(signal.SIGINT)
    result = app.run(config("provider=echo", "prompts=memo"), tmp_path, observer=SignalAt(moment))
    assert (result.status, result.is_interrupted) == ("FINISHED", True)
    assert summary_of(tmp_path).metrics["completed_prompts"] == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_while_the_record_is_closed_ends_a_sweep(config: Compose, tmp_path: Path):
    """As `_run_job` sees it: a run that failed has its own error, and the interrupt is not lost to it."""
    failing = config("provider=echo", "prompts=memo", "provider.fail_on=''")
    with pytest.raises(Interrupted, match="none of the 2 prompts was completed"):
        app.run(failing, tmp_path, observer=SignalAt("all prompts answered"))
    assert summary_of(tmp_path).metrics["failed_prompts"] == 2


@pytest.mark.parametrize("earlier", [0, 3], ids=["new run", "resumed run"])
def test_an_interrupt_before_the_first_prompt_leaves_the_metrics_of_what_there_is(
    earlier: int, config: Compose, tmp_path: Path
):
    slow = config("provider=echo", "provider.latency_s=2", "batch.mode=static", "batch.size=3", "prompts.limit=6")
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))  # in the warm-up, which takes 2 s
    if earlier:
        app.run(slow, tmp_path)
        outcomes = tmp_path / OUTCOMES
        outcomes.write_bytes(b"".join(outcomes.read_bytes().splitlines(keepends=True)[:earlier]))
        (tmp_path / SUMMARY).unlink()  # as a process that was killed leaves it
    timer.start()
    result = app.resume(tmp_path) if earlier else app.run(slow, tmp_path)
    assert (result.status, result.exit_code) == ("KILLED", 130)
    assert_closed(tmp_path, completed=earlier)
