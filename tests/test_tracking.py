"""The store is away, dies, or is slow: the run does not mind, and MLflow hears of it later, once."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from runner import app
from runner.errors import TooManyFailuresError
from tests.conftest import Compose, Runner
from tests.mlflow_server import serve
from tests.openai_server import OpenAIServer
from tests.proxy import Proxy


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
