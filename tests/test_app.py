"""`app.run`: one configuration in, a whole record out, on disk and in a real MLflow store."""

import json
import subprocess
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from mlflow import MlflowClient

from runner import app
from runner.cli.observer import TerminalObserver
from runner.errors import ModelError, PromptSetError, RunInUseError, RunnerError
from runner.metrics.definitions import NAMES
from runner.prompts import load_prompts
from tests import processes
from tests.conftest import Compose
from tests.tracking import forked


@pytest.fixture
def client(store: str) -> MlflowClient:
    mlflow.set_tracking_uri(store)
    return MlflowClient(store)


def last_run(client: MlflowClient, name: str) -> Any:
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return client.search_runs([experiment.experiment_id])[0]


def test_a_run_leaves_its_record_on_disk(config: Compose, tmp_path: Path):
    result = app.run(config("provider=echo", "batch.mode=static", "name=disk"), tmp_path)
    assert result.exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.json",
        "config.yaml",
        "prompts.jsonl",
        "outcomes.jsonl",
        "summary.json",
        "environment.json",
        "segments.json",
        "run.hmac",
    }
    outcomes = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()]
    assert len(outcomes) == result.metrics["completed_prompts"] == 64
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["status"] == "FINISHED"
    assert written["metrics"] == result.metrics
    assert set(written["metrics"]) <= set(NAMES)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert {"git", "python", "os", "cpu", "packages", "settings", "provider"} <= set(environment)
    assert environment["packages"]["mlflow"]


def test_each_run_of_a_process_has_its_own_settings_on_record(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for threads in ("1", "2"):
        monkeypatch.setenv("MKL_NUM_THREADS", threads)
        app.run(config("provider=echo", "prompts=memo"), tmp_path / threads)
        environment = json.loads((tmp_path / threads / "environment.json").read_text())
        assert environment["settings"]["MKL_NUM_THREADS"] == threads


def test_the_config_file_is_whole_and_states_the_mode_that_ran(config: Compose, tmp_path: Path):
    asked = config("provider=echo", "name=mode")
    assert asked.batch.mode is None
    app.run(asked, tmp_path)
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["batch"]["mode"] == "concurrent"
    assert set(written) == {
        "name",
        "seed",
        "repeat",
        "provider",
        "model",
        "generation",
        "prompts",
        "batch",
        "limits",
        "tracking",
    }


def test_mlflow_has_params_tags_metrics_steps_dataset_files_and_table(
    tracked: Compose, client: MlflowClient, tmp_path: Path
):
    asked = tracked(
        "provider=echo", "batch.mode=static", "batch.size=10", "name=tracked", "generation.stop_sequences=[END]"
    )
    result = app.run(asked, tmp_path, tags={"hydra.overrides": "a b"})
    run = client.get_run(str(result.summary.mlflow_run_id))
    assert run.info.status == "FINISHED"
    assert run.data.metrics.keys() >= result.metrics.keys()
    params = run.data.params
    assert (params["batch.size"], params["batch.mode"], params["prompts.limit"]) == ("10", "static", "null")
    assert (params["provider.latency_s"], params["generation.stop_sequences"]) == ("0", "[END]")
    assert run.data.tags["hydra.overrides"] == "a b"
    assert run.data.tags["prompts.sha256"] == load_prompts(asked.prompts).sha256
    assert run.data.tags["environment.python"]
    assert len(client.get_metric_history(run.info.run_id, "batch/latency_s")) == 7, (
        "a step per batch of 64 prompts by 10"
    )
    assert run.inputs is not None
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, json.loads(str(dataset.dataset.profile))) == ("demo", {"num_prompts": 64})
    files = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert files == {
        "config.yaml",
        "prompts.jsonl",
        "outcomes.jsonl",
        "summary.json",
        "environment.json",
        "segments.json",
        "outputs.json",
    }
    mlflow.set_experiment("tracked")
    table = mlflow.load_table("outputs.json", run_ids=[run.info.run_id])
    assert list(table["prompt_id"]) == [prompt.id for prompt in load_prompts(asked.prompts).prompts], (
        "in the set's order"
    )
    assert table["text"].notna().all()


def test_params_are_hydra_overrides_that_give_the_same_configuration(
    tracked: Compose, client: MlflowClient, tmp_path: Path
):
    asked = tracked(
        "provider=echo", "batch.mode=static", "name=again", "generation.stop_sequences=[a,b]", "generation.n=2"
    )
    result = forked.run(asked, tmp_path)
    params = client.get_run(str(result.summary.mlflow_run_id)).data.params
    assert tracked("provider=echo", *(f"{name}={value}" for name, value in params.items())) == asked


@pytest.mark.parametrize(("traces", "expected"), [("sample", 16), ("all", 33), ("off", 0)])
def test_traces_carry_the_prompt_the_answer_and_genai_attributes(
    traces: str, expected: int, tracked: Compose, client: MlflowClient, tmp_path: Path
):
    asked = tracked(
        "provider=echo",
        f"tracking.traces={traces}",
        f"name=traces-{traces}",
        "prompts.limit=33",
        "provider.fail_on=Shorten",
    )
    result = forked.run(asked, tmp_path)
    experiment = client.get_experiment_by_name(f"traces-{traces}")
    assert experiment is not None
    recorded = client.search_traces(locations=[experiment.experiment_id], max_results=100)
    assert len(recorded) == expected
    for trace in recorded:
        assert trace.info.trace_metadata["mlflow.sourceRun"] == result.summary.mlflow_run_id
        (span,) = trace.data.spans
        assert span.inputs["messages"][0]["content"]
        assert span.attributes["gen_ai.request.max_tokens"] == 64
        assert (span.attributes["gen_ai.provider.name"], span.attributes["gen_ai.operation.name"]) == ("echo", "chat")
        assert "gen_ai.request.seed" not in span.attributes, "it has none"
        if span.status.status_code == "OK":
            assert span.outputs["choices"][0]["message"]["content"]
            assert span.attributes["gen_ai.usage.output_tokens"] > 0
            assert span.end_time_ns >= span.start_time_ns
        else:
            assert span.attributes["error.type"] == "EchoRefused"


def test_a_run_with_failures_is_finished_with_exit_code_1(
    config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    result = app.run(
        config("provider=echo", "provider.fail_on=Write", "name=some"), tmp_path, observer=TerminalObserver()
    )
    assert result.status == "FINISHED"
    assert result.exit_code == 1
    assert 0 < result.metrics["failed_prompts"] < 64
    assert "prompts failed" in caplog.text


def test_a_run_in_which_everything_failed_has_failed(tracked: Compose, client: MlflowClient, tmp_path: Path):
    with pytest.raises(RunnerError, match=r"none of the 64 prompts.*EchoRefused"):
        forked.run(tracked("provider=echo", "provider.fail_on=''", "name=all-failed"), tmp_path)
    run = last_run(client, "all-failed")
    assert run.info.status == "FAILED"
    assert run.data.tags["error.type"] == "RunnerError"
    written = json.loads((tmp_path / "summary.json").read_text())
    assert (written["status"], written["metrics"]["failed_prompts"]) == ("FAILED", 64)
    assert "output_tokens_per_s" not in written["metrics"], "absent, not zero"


def test_an_error_ends_the_mlflow_run_failed_with_its_message(tracked: Compose, client: MlflowClient, tmp_path: Path):
    with pytest.raises(ModelError):
        forked.run(tracked("model.id=/no/such/model", "name=failed"), tmp_path)
    run = last_run(client, "failed")
    assert run.info.status == "FAILED"
    assert run.data.tags["error.type"] == "ModelError"
    assert "/no/such/model" in run.data.tags["error.message"]
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "FAILED"


def test_a_folder_that_has_outcomes_is_left_alone(config: Compose, tmp_path: Path):
    (tmp_path / "outcomes.jsonl").write_text("someone else's\n")
    with pytest.raises(RunInUseError, match="exists already"):
        app.run(config("provider=echo"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.jsonl"]
    assert (tmp_path / "outcomes.jsonl").read_text() == "someone else's\n"


def test_wrong_prompts_leave_no_mlflow_run(tracked: Compose, client: MlflowClient, tmp_path: Path):
    with pytest.raises(PromptSetError):
        app.run(tracked("provider=echo", "prompts=file", "prompts.path=absent.txt", "name=never"), tmp_path)
    assert client.get_experiment_by_name("never") is None
    assert json.loads((tmp_path / "summary.json").read_text())["error"]["type"] == "PromptSetError"


def test_the_store_is_created_by_two_runs_at_once_without_harm(tmp_path: Path):
    command = ["runner", "provider=echo", "prompts=memo"]
    together = [processes.start(command, cwd=tmp_path, stderr=subprocess.STDOUT) for _ in range(2)]
    for process in together:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'batch-generation'")
    assert len(client.search_runs([experiment.experiment_id])) == 2
    assert (tmp_path / "outputs" / "artifacts").is_dir()
    assert not (tmp_path / "mlruns").exists()


def test_model_text_reaches_no_terminal_as_a_command(
    config: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(json.dumps({"prompt": "red \x1b[31m [bold]x[/bold] \x07 end"}))
    escapes = config("provider=echo", "prompts=file", f"prompts.path={prompts}", "name=escapes")
    app.run(escapes, tmp_path / "run", observer=TerminalObserver())
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[bold]x[/bold]" in shown
    kept = json.loads((tmp_path / "run" / "outcomes.jsonl").read_text())
    assert kept["text"] == "red \x1b[31m [bold]x[/bold] \x07 end"
