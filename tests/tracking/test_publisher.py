"""The store is unreachable, dies, or is slow: the run is not disturbed, and MLflow has all of it later, once."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from runner import app
from runner.cli.observer import TerminalObserver
from runner.config.waits import Waits
from runner.errors import TooManyFailuresError
from runner.record.folder import RunFolder
from runner.tracking.publisher import RunPublisher, StartWorker
from tests import processes
from tests.conftest import Compose
from tests.servers.mlflow_server import StoredExperiment
from tests.servers.proxy import Proxy
from tests.tracking import forked

SHORT_WAITS = Waits(connect_s=1.0, store_retry_s=0.2)


def assert_published_once(experiment: StoredExperiment, folder: Path) -> None:
    run, summary = experiment.run, json.loads((folder / "summary.json").read_text())
    assert run.info.status == summary["status"] == "FINISHED"
    assert run.info.run_id == summary["mlflow_run_id"]
    assert run.data.metrics.items() >= summary["metrics"].items()
    steps = experiment.client.get_metric_history(run.info.run_id, "batch/latency_s")
    assert len(steps) == len({step.step for step in steps}) == 4, "64 prompts by 16, each step once"
    assert {"outcomes.jsonl", "outputs.json", "prompts.jsonl"} <= experiment.artifacts()
    assert len(experiment.traces()) == 16
    assert not any(tag.startswith("error.") for tag in run.data.tags)


def test_a_run_is_published_later_and_once_where_the_store_was_unreachable(
    server_client: MlflowClient, proxy: Proxy, config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    proxy.is_open = False
    overrides = [f"tracking.uri={proxy.url}", "tracking.traces=sample"]
    away = config("provider=echo", "name=away", *overrides)
    result = forked.run(away, tmp_path, waits=SHORT_WAITS, observer=TerminalObserver())
    assert (result.status, result.exit_code, result.summary.mlflow_run_id) == ("FINISHED", 0, None)
    assert "The run folder keeps the record" in caplog.text
    assert not result.is_published
    assert "MLflow does not have all of this run" in caplog.text
    assert f"python -m runner.resume {tmp_path}" in caplog.text
    proxy.is_open = True
    for _ in range(2):  # publishing again changes nothing
        again = forked.resume(tmp_path)
        assert again.metrics == result.metrics
        assert again.is_published
        assert_published_once(StoredExperiment(client=server_client, name="away"), tmp_path)


def test_an_unreachable_store_is_tried_again_and_warned_of_once(
    server_client: MlflowClient, proxy: Proxy, config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    proxy.is_open = False
    threading.Timer(4.0, setattr, (proxy, "is_open", True)).start()
    overrides = ["name=tried-again", f"tracking.uri={proxy.url}", "tracking.traces=sample", "provider.latency_s=2"]
    result = forked.run(config("provider=echo", *overrides), tmp_path, waits=SHORT_WAITS)
    assert caplog.text.count("The run folder keeps the record") == 1
    assert result.is_published
    assert_published_once(StoredExperiment(client=server_client, name="tried-again"), tmp_path)


def test_a_failed_run_names_the_command_that_publishes_it_too(
    proxy: Proxy, config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    proxy.is_open = False
    failing = config(
        "provider=echo",
        "provider.fail_on=capital",
        "prompts=memo",
        "limits.max_failures=0",
        f"tracking.uri={proxy.url}",
    )
    with pytest.raises(TooManyFailuresError):
        forked.run(failing, tmp_path, waits=SHORT_WAITS, observer=TerminalObserver())
    assert f"publish it later: python -m runner.resume {tmp_path}" in caplog.text


@pytest.mark.parametrize(
    "max_requests", [3, 8, 14, 20, 45], ids=["opening", "parameters", "metrics", "files", "traces"]
)
def test_the_rest_is_published_later_where_the_store_died_meanwhile(
    max_requests: int, server_client: MlflowClient, proxy: Proxy, config: Compose, tmp_path: Path
):
    proxy.max_requests = max_requests
    name = f"dies-{max_requests}"
    overrides = [f"name={name}", f"tracking.uri={proxy.url}", "tracking.traces=sample"]
    result = forked.run(config("provider=echo", *overrides), tmp_path, waits=SHORT_WAITS)
    assert result.exit_code == 0
    assert not result.is_published
    proxy.max_requests, proxy.is_open = None, True
    forked.resume(tmp_path, waits=SHORT_WAITS)
    assert_published_once(StoredExperiment(client=server_client, name=name), tmp_path)


def test_a_slow_store_is_waited_for_while_there_is_progress_and_delays_no_prompt(
    server_client: MlflowClient, proxy: Proxy, config: Compose, tmp_path: Path
):
    proxy.delay_s = 0.06
    waits = Waits(publish_s=4.0)
    overrides = ["name=slow", f"tracking.uri={proxy.url}", "tracking.traces=sample"]
    start = time.monotonic()
    result = forked.run(config("provider=echo", *overrides), tmp_path, waits=waits)
    assert time.monotonic() - start > waits.publish_s, "the store was too fast for this test"
    assert result.is_published
    experiment = StoredExperiment(client=server_client, name="slow")
    assert_published_once(experiment, tmp_path)
    last_outcome_s = (tmp_path / "outcomes.jsonl").stat().st_mtime
    assert last_outcome_s * 1000 < experiment.run.info.start_time, "all was generated before the store had the run"


def wait_until_ended(experiment: StoredExperiment) -> Run:
    """Wait for the worker, which is nobody's child any more."""
    for _ in range(600):
        if (runs := experiment.runs()) and runs[0].info.status != "RUNNING":
            return runs[0]
        time.sleep(0.1)
    raise AssertionError(runs)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_the_worker_publishes_a_run_alone_that_does_not_wait_for_mlflow(
    how: signal.Signals, server_client: MlflowClient, proxy: Proxy, tmp_path: Path
):
    """The run prints its answers before MLflow has them, and MLflow changes nothing of what the run prints."""
    proxy.delay_s = 0.15
    experiment = StoredExperiment(client=server_client, name=f"left-{how.name}")
    overrides = [f"name={experiment.name}", f"tracking.uri={proxy.url}", "tracking.traces=sample", "hydra.run.dir=r"]
    with processes.start(["runner", "provider=echo", *overrides], cwd=tmp_path) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        messages = ""
        while f"publishing to MLflow at {proxy.url}" not in messages:
            messages += (line := process.stderr.readline())
            assert line, messages
        assert "(Ctrl-C leaves it to python -m runner.resume r)" in messages
        assert "completed_prompts" in "".join(itertools.takewhile(lambda line: "Record" not in line, process.stdout))
        process.send_signal(how)
        messages += process.stderr.read()
        assert process.wait(20) == (0 if how == signal.SIGINT else -how), messages
    proxy.delay_s = 0.0  # the run is gone, and waited for nothing
    assert "Traceback" not in messages
    if how == signal.SIGINT:
        assert "publish it later: python -m runner.resume r\n" in messages
    else:
        assert wait_until_ended(experiment).info.status == "FINISHED"
    assert forked.resume(tmp_path / "r").is_published
    assert_published_once(experiment, tmp_path / "r")


def test_a_store_that_never_answers_is_not_waited_for(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        arguments = ["runner", "provider=echo", f"tracking.uri={uri}", "hydra.run.dir=r"]
        environment = os.environ | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
        done = processes.run(arguments, cwd=tmp_path, env=environment)
        took_s = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    assert "publish it later: python -m runner.resume r\n" in done.stderr
    assert took_s < 45, "a store that answered is waited for a minute"


def test_no_run_imports_mlflow(tmp_path: Path, store: str):
    code = (
        "import sys; sys.argv = ['runner', 'provider=echo', *sys.argv[1:]]\n"
        "from runner.cli import main\n"
        "try:\n    main.main()\n"
        "finally:\n    assert not {'mlflow', 'sqlalchemy', 'pandas', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"tracking.uri={store}"], cwd=tmp_path, env=os.environ, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def start_process(code: str, started: list["subprocess.Popen[str]"]) -> StartWorker:
    """Return what starts a process in the worker's place, which reports what a worker of a bad store does."""

    def start(*_: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", code]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    return start


@pytest.mark.parametrize(
    ("code", "waits"),
    [
        pytest.param("import sys; sys.stdin.read()", Waits(publish_s=1.5), id="hangs"),
        pytest.param(
            'import time\nwhile True: print(\'{"state": "publishing"}\', flush=True); time.sleep(0.1)',
            Waits(publish_s=60.0, publish_whole_s=1.5),
            id="never ends",
        ),
    ],
)
def test_a_bad_store_is_waited_for_once_and_not_for_ever(code: str, waits: Waits, tmp_path: Path):
    started: list[subprocess.Popen[str]] = []
    start = start_process(code, started)
    with RunPublisher(RunFolder(tmp_path), "sqlite:///x", waits, start=start) as publisher:
        publisher.finish()
        began = time.monotonic()
        publisher.finish()
        assert time.monotonic() - began < 1.0
        assert not publisher.is_published
    started[0].kill()
    started[0].wait()


def test_the_process_that_publishes_to_a_store_that_hangs_ends_by_itself(config: Compose, tmp_path: Path):
    workers: list[subprocess.Popen[str]] = []

    def start(folder: RunFolder, uri: str, waits: Waits) -> "subprocess.Popen[str]":
        workers.append(forked.start_worker(folder, uri, waits))
        return workers[-1]

    with socket.create_server(("127.0.0.1", 0)) as hung:
        uri = f"http://127.0.0.1:{hung.getsockname()[1]}"
        waits = Waits(connect_s=0.5, worker_s=1.0)
        app.run(config("provider=echo", f"tracking.uri={uri}"), tmp_path / "run", waits=waits, start_worker=start)
        assert workers[0].wait(20) == 1
