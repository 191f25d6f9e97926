"""The store is away, dies, or is slow: the run does not mind, and MLflow hears of it later, once."""

import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, Trace

from runner import app
from runner.errors import JournalError, TooManyFailuresError
from tests.conftest import Compose, Runner
from tests.servers.mlflow_server import serve
from tests.servers.openai_server import OpenAIServer
from tests.servers.proxy import Proxy


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, MlflowClient]]:
    """A real MLflow server: its port, and a client that goes there directly."""
    with serve(tmp_path_factory.mktemp("server")) as port:
        yield port, MlflowClient(f"http://127.0.0.1:{port}")


@pytest.fixture
def proxy(server: tuple[int, MlflowClient]) -> Iterator[Proxy]:
    with Proxy(server[0]) as made:
        yield made


def runs(client: MlflowClient, name: str) -> list[Run]:
    experiment = client.get_experiment_by_name(name)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def assert_told_once(client: MlflowClient, name: str, folder: Path, *, traces: int = 16) -> None:
    (run,) = runs(client, name)
    written = json.loads((folder / "summary.json").read_text())
    assert run.info.status == written["status"] == "FINISHED"
    assert run.info.run_id == written["mlflow_run_id"]
    assert run.data.metrics.items() >= written["metrics"].items()
    steps = client.get_metric_history(run.info.run_id, "batch/latency_s")
    assert len(steps) == len({step.step for step in steps}) == 4, "64 prompts by 16, each step once"
    assert {"outcomes.jsonl", "outputs.json", "prompts.jsonl"} <= {
        file.path for file in client.list_artifacts(run.info.run_id)
    }
    found = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=100)
    assert len(found) == traces
    assert not any(tag.startswith("error.") for tag in run.data.tags)


def test_a_store_that_is_away_is_told_later_and_once(
    server: tuple[int, MlflowClient], proxy: Proxy, config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    proxy.open = False
    overrides = [f"tracking.uri={proxy.url}", "tracking.traces=sample"]
    summary = app.run(config("provider=echo", "name=away", *overrides), tmp_path)
    assert (summary.status, summary.exit_code, summary.mlflow_run_id) == ("FINISHED", 0, None)
    assert "MLflow does not have all of this run" in caplog.text
    assert f"python -m runner.resume {tmp_path}" in caplog.text
    proxy.open = True
    for _ in range(2):  # telling again changes nothing
        again = app.resume(tmp_path)
        assert again.metrics == summary.metrics
        assert_told_once(server[1], "away", tmp_path)


@pytest.mark.parametrize("requests_before", [3, 8, 14, 20])
def test_a_store_that_dies_while_it_is_told_is_told_the_rest_later(
    requests_before: int, server: tuple[int, MlflowClient], proxy: Proxy, config: Compose, tmp_path: Path
):
    proxy.shut_after = requests_before
    name = f"dies-{requests_before}"
    summary = app.run(
        config("provider=echo", f"name={name}", f"tracking.uri={proxy.url}", "tracking.traces=sample"), tmp_path
    )
    assert summary.exit_code == 0
    proxy.shut_after, proxy.open = None, True
    app.resume(tmp_path)
    assert_told_once(server[1], name, tmp_path)


def test_a_slow_store_holds_nothing_up(server: tuple[int, MlflowClient], proxy: Proxy, config: Compose, tmp_path: Path):
    proxy.delay_s = 0.3
    app.run(config("provider=echo", "name=slow", f"tracking.uri={proxy.url}", "tracking.traces=sample"), tmp_path)
    assert_told_once(server[1], "slow", tmp_path)
    (run,) = runs(server[1], "slow")
    last = (tmp_path / "outcomes.jsonl").stat().st_mtime
    assert last * 1000 < run.info.start_time, "all was generated before the store had even the run"


def command(name: str, uri: str, *overrides: str) -> list[str]:
    run = [sys.executable, "-m", "runner", "provider=echo", f"name={name}", f"tracking.uri={uri}", "hydra.run.dir=r"]
    return [*run, *overrides]


def until_ended(client: MlflowClient, name: str) -> Run:
    """Wait for the process that tells MLflow: it is nobody's child any more."""
    for _ in range(600):
        if (found := runs(client, name)) and found[0].info.status != "RUNNING":
            return found[0]
        time.sleep(0.1)
    raise AssertionError(found)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_a_run_that_does_not_wait_for_mlflow_is_told_by_the_other_process_alone(
    how: signal.Signals, server: tuple[int, MlflowClient], proxy: Proxy, tmp_path: Path
):
    """Its answers come before MLflow's, and what it says of itself is not MLflow's to change."""
    proxy.delay_s = 0.15
    name = f"left-{how.name}"
    with subprocess.Popen(
        command(name, proxy.url, "tracking.traces=sample"), cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stdout is not None
        said = ""
        while f"telling MLflow at {proxy.url}" not in said:
            said += (line := process.stderr.readline())
            assert line, said
        assert "(Ctrl-C leaves it to python -m runner.resume r)" in said
        assert "completed_prompts" in "".join(itertools.takewhile(lambda line: "Record" not in line, process.stdout))
        process.send_signal(how)
        said += process.stderr.read()
        assert process.wait(20) == (0 if how == signal.SIGINT else -how), said
    assert "Traceback" not in said
    if how == signal.SIGINT:
        assert "tell it later: python -m runner.resume r\n" in said
    else:
        assert until_ended(server[1], name).info.status == "FINISHED"
        proxy.delay_s = 0.0
    done = subprocess.run([sys.executable, "-m", "runner.resume", "r"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0
    assert_told_once(server[1], name, tmp_path / "r")


def test_a_store_that_never_answers_is_not_waited_for(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        environment = os.environ | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
        done = subprocess.run(
            command("silent", uri), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        took_s = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert "tell it later: python -m runner.resume r\n" in done.stderr
    assert took_s < 45, "it has a minute's patience with a store that answered"


def test_all_traces_are_told_once_however_many_there_are(tracked: Compose, store: str, tmp_path: Path):
    (tmp_path / "p.txt").write_text("".join(f"text {number}\n" for number in range(505)))
    source = ("prompts=file", f"prompts.path={tmp_path / 'p.txt'}", "tracking.traces=all")
    app.run(tracked("provider=echo", "name=many-traces", *source), tmp_path / "run")
    app.resume(tmp_path / "run")
    client = MlflowClient(store)
    (run,) = runs(client, "many-traces")
    first = client.search_traces(locations=[run.info.experiment_id], include_spans=False, max_results=500)
    rest = client.search_traces(
        locations=[run.info.experiment_id], include_spans=False, max_results=500, page_token=first.token
    )
    assert len(first) + len(rest) == 505


@pytest.mark.parametrize("traces", ["all", "sample"])
def test_a_resumed_run_has_its_points_once_and_a_trace_of_what_completed_later(
    traces: str, tracked: Compose, store: str, tmp_path: Path
):
    client, name = MlflowClient(store), f"resumed-{traces}"
    refuse = {"status": 400, "body": {"error": {"message": "not today"}}}
    with OpenAIServer(fault=lambda number, _: refuse if number % 5 == 0 else None) as service:
        overrides = [f"provider.base_url={service.url}/v1", "provider.api_key_env=null", f"name={name}"]
        asked = tracked("provider=openai", "batch.size=auto", *overrides, f"tracking.traces={traces}")
        first = app.run(asked, tmp_path)
        assert first.metrics["failed_prompts"] == 13
        failed = {trace.info.trace_metadata["runner.outcome"] for trace in traces_of(client, name) if is_error(trace)}
        before = points(client, name)
        service.fault = lambda *_: None
        app.resume(tmp_path)
        after = points(client, name)
        assert after.items() >= before.items(), "what was told stays as it is"
        assert all(len(values) == 1 for values in after.values())
        assert len(after) > len(before)
        steps = [{step for metric, step in found if metric == "batch/latency_s"} for found in (before, after)]
        assert max(steps[1]) > max(steps[0]), "steps are counted on"
        completed = {
            trace.info.trace_metadata["runner.outcome"] for trace in traces_of(client, name) if not is_error(trace)
        }
        assert {f"{name}@1" for name in failed} <= completed
        figures = len(client.get_metric_history(runs(client, name)[0].info.run_id, "duration_s"))
        app.resume(tmp_path)
        assert points(client, name) == after
        assert len(client.get_metric_history(runs(client, name)[0].info.run_id, "duration_s")) == figures


def traces_of(client: MlflowClient, name: str) -> list[Trace]:
    (run,) = runs(client, name)
    return list(client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id, max_results=100))


def is_error(trace: Trace) -> bool:
    return trace.data.spans[0].status.status_code == "ERROR"


def points(client: MlflowClient, name: str) -> dict[tuple[str, int], list[tuple[int, float]]]:
    """Return time and value of every point of the run's curves, by name and step."""
    (run,) = runs(client, name)
    found: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for metric in (name for name in run.data.metrics if name.startswith("batch/")):
        for point in client.get_metric_history(run.info.run_id, metric):
            found.setdefault((metric, point.step), []).append((point.timestamp, point.value))
    return found


def test_a_summary_that_cannot_be_written_is_one_message_and_the_mlflow_run_has_failed(
    tracked: Compose, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / ".summary.json.new").mkdir()
    with pytest.raises(JournalError, match=r"summary\.json cannot be written"):
        app.run(tracked("provider=echo", "name=no-summary"), tmp_path)
    assert "AssertionError" not in caplog.text
    assert "was not told how the run ended" in caplog.text
    client = MlflowClient(store)
    assert runs(client, "no-summary")[0].info.status == "FAILED"
    (tmp_path / ".summary.json.new").rmdir()
    app.resume(tmp_path)
    assert runs(client, "no-summary")[0].info.status == "FINISHED"


@pytest.mark.parametrize(
    "uri", ["http://me:planted-word@127.0.0.1:1", "postgresql://me:planted-word@127.0.0.1/x", "ftp://me:planted-word@h"]
)
def test_a_password_in_the_stores_address_is_refused_and_not_repeated(uri: str, tmp_path: Path):
    refused = [sys.executable, "-m", "runner", "provider=echo", "tracking=server", "hydra.run.dir=r2"]
    done = subprocess.run(
        refused,
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in done.stderr
    assert "planted-word" not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"planted-word" not in path.read_bytes(), path


def test_a_deleted_experiment_is_named_and_nothing_is_lost(
    tracked: Compose, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    client = MlflowClient(store)
    experiment_id = client.create_experiment("deleted")
    client.delete_experiment(experiment_id)
    assert app.run(tracked("provider=echo", "name=deleted"), tmp_path).status == "FINISHED"
    assert "this MLflow experiment is deleted: restore it" in caplog.text
    client.restore_experiment(experiment_id)
    app.resume(tmp_path)
    (run,) = runs(client, "deleted")
    assert run.info.status == "FINISHED"


def test_a_resumed_run_is_the_same_mlflow_run_and_forgets_its_error(tracked: Compose, store: str, tmp_path: Path):
    def refuse(_number: int, _body: object) -> dict[str, object]:
        return {"status": 400, "body": {"error": {"message": "not today"}}}

    client = MlflowClient(store)
    with OpenAIServer(fault=refuse) as service:
        overrides = [f"provider.base_url={service.url}/v1", "provider.api_key_env=null", "limits.max_failures=5"]
        with pytest.raises(TooManyFailuresError, match=r"limits\.max_failures=5; the last .* not today"):
            app.run(tracked("provider=openai", "name=refused", *overrides), tmp_path)
        (run,) = runs(client, "refused")
        assert (run.info.status, run.data.tags["error.type"]) == ("FAILED", "TooManyFailuresError")
        service.fault = lambda *_: None
        app.resume(tmp_path)
    (run,) = runs(client, "refused")
    assert run.info.status == "FINISHED"
    assert "error.type" not in run.data.tags
    assert run.data.metrics["completed_prompts"] == 64


def test_a_run_is_found_by_its_mlflow_id(run_command: Runner, tracked: Compose, store: str, tmp_path: Path):
    summary = app.run(tracked("provider=echo", "name=by-id"), tmp_path / "run")
    command = [sys.executable, "-m", "runner.resume", str(summary.mlflow_run_id), "--tracking-uri", store]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "64 of 64 prompts are done" in done.stderr
    command[3] = "0" * 32
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_no_run_imports_mlflow(tmp_path: Path, store: str):
    code = (
        "import sys; sys.argv = ['runner', 'provider=echo', *sys.argv[1:]]\n"
        "from runner import commandline\n"
        "try:\n    commandline.main()\n"
        "finally:\n    assert not {'mlflow', 'sqlalchemy', 'pandas', 'torch'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, f"tracking.uri={store}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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


@pytest.mark.parametrize("override", ["hydra.run.dir=/proc/x/y", "tracking.uri=sqlite:////proc/x/mlflow.db"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_sent(override: str, run_command: Runner):
    done = run_command("provider=echo", override, track=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "/proc/x" in done.stderr


@pytest.fixture(autouse=True)
def our_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runner")
