"""One stop: the first reason counts, an interrupt always does, and a reason is raised once."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner import app
from runner.dispatch.stop import Stopped, StopRequest
from runner.errors import AccessError, Interrupted, RunnerError, ServiceError
from tests.conftest import Compose
from tests.servers.openai_server import OpenAIServer

_THREADS, _ROUNDS = 4, 200


@contextmanager
def _frequent_switches() -> Iterator[None]:
    """Let threads take turns every few instructions, so that a race is met in seconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_an_interrupt_is_not_lost_to_a_reason_that_other_threads_set_at_the_same_moment():
    with _frequent_switches():
        for _ in range(_ROUNDS):
            stop, together = StopRequest(), threading.Barrier(_THREADS + 1)

            def request(stop: StopRequest, together: threading.Barrier) -> None:
                together.wait()
                stop.request(ServiceError("refused"))

            threads = [threading.Thread(target=request, args=(stop, together)) for _ in range(_THREADS)]
            for thread in threads:
                thread.start()
            together.wait()
            stop.interrupt()
            for thread in threads:
                thread.join()
            assert isinstance(stop.reason, Interrupted)


def test_an_interrupt_is_not_lost_where_its_handler_runs_inside_a_request():
    """Signals come between any two instructions of the main thread, also while it has the lock."""
    stop = StopRequest()
    handled: list[StopRequest] = []

    def interrupt(*_: object) -> None:
        stop.interrupt()
        handled.append(stop)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with _frequent_switches():
            for _ in range(_ROUNDS):
                stop = StopRequest()
                sender = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT))
                sender.start()
                while not handled or handled[-1] is not stop:
                    stop.request(ServiceError("refused"))
                sender.join()
                assert isinstance(stop.reason, Interrupted)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_first_reason_counts_whichever_thread_has_it():
    with _frequent_switches():
        for _ in range(_ROUNDS):
            stop = StopRequest()
            reasons: list[RunnerError] = [ServiceError(str(number)) for number in range(_THREADS)]
            threads = [threading.Thread(target=stop.request, args=(reason,)) for reason in reasons]
            for thread in threads:
                thread.start()
            seen = stop.reason
            for thread in threads:
                thread.join()
            assert stop.reason in reasons
            assert seen in (None, stop.reason), "a reason that was there is replaced by none"


def test_each_worker_that_stops_raises_an_exception_of_its_own():
    stop = StopRequest()
    stop.request(AccessError("refused"))
    raised = []
    for _ in range(2):
        with pytest.raises(Stopped) as caught:
            stop.raise_if_set()
        raised.append(caught.value)
    assert raised[0] is not raised[1]


@pytest.mark.parametrize("mode", ["concurrent", "static"])
def test_the_reason_of_a_stop_is_raised_once_by_the_run_and_by_no_worker(mode: str, config: Compose, tmp_path: Path):
    refusal = {"status": 401, "body": {"error": {"message": "no such key"}}}
    settings = [f"batch.mode={mode}", "batch.size=8", "provider.api_key_env=null"]
    if mode == "static":
        settings += ["provider.endpoint=completions"]
    with OpenAIServer(fault=lambda *_: refusal) as server:
        asked = config("provider=openai", f"provider.base_url={server.url}/v1", *settings)
        with pytest.raises(AccessError, match="no such key") as caught:
            app.run(asked, tmp_path)
    files = [Path(frame.filename) for frame in traceback.extract_tb(caught.value.__traceback__)]
    rooms = {file.parent.name for file in files if file != Path(__file__)}
    assert rooms == {"runner", "run"}, "a worker had raised it before"
