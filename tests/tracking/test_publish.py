"""A run folder as an MLflow run: published again, resumed, or found again after a loss, each is there once."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from runner.errors import TooManyFailuresError
from tests.conftest import Compose
from tests.servers.mlflow_server import StoredExperiment
from tests.servers.openai_server import OpenAIServer
from tests.tracking import forked


@pytest.mark.parametrize("traces", ["all", "sample"])
def test_a_resumed_run_has_its_points_once_and_a_trace_of_what_completed_later(
    traces: str, tracked: Compose, store: str, tmp_path: Path
):
    experiment = StoredExperiment(client=MlflowClient(store), name=f"resumed-{traces}")
    refusal = {"status": 400, "body": {"error": {"message": "not today"}}}
    with OpenAIServer(fault=lambda number, _: refusal if number % 5 == 0 else None) as service:
        overrides = [f"provider.base_url={service.url}/v1", "provider.api_key_env=null", f"name={experiment.name}"]
        config = tracked("provider=openai", "batch.size=auto", *overrides, f"tracking.traces={traces}")
        first = forked.run(config, tmp_path)
        assert first.metrics["failed_prompts"] == 13
        failed = outcomes_with_traces(experiment, status="ERROR")
        before = experiment.points()
        service.fault = lambda *_: None
        forked.resume(tmp_path)
        after = experiment.points()
        assert after.items() >= before.items(), "what was published stays as it is"
        assert all(len(values) == 1 for values in after.values())
        assert len(after) > len(before)
        steps = [{step for metric, step in points if metric == "batch/latency_s"} for points in (before, after)]
        assert max(steps[1]) > max(steps[0]), "steps are counted on"
        assert {f"{name}@1" for name in failed} <= outcomes_with_traces(experiment, status="OK")
        traced, figures = len(experiment.traces()), experiment.points("duration_s")
        forked.resume(tmp_path)
        assert experiment.points() == after
        assert experiment.points("duration_s") == figures
        assert len(experiment.traces()) == traced


def outcomes_with_traces(experiment: StoredExperiment, *, status: str) -> set[str]:
    return {
        trace.info.trace_metadata["runner.outcome"]
        for trace in experiment.traces()
        if trace.data.spans[0].status.status_code == status
    }


def test_a_resumed_run_is_the_same_mlflow_run_and_loses_its_error_tags(tracked: Compose, store: str, tmp_path: Path):
    def refuse(_number: int, _body: object) -> dict[str, object]:
        return {"status": 400, "body": {"error": {"message": "not today"}}}

    experiment = StoredExperiment(client=MlflowClient(store), name="refused")
    with OpenAIServer(fault=refuse) as service:
        overrides = [f"provider.base_url={service.url}/v1", "provider.api_key_env=null", "limits.max_failures=5"]
        with pytest.raises(TooManyFailuresError, match=r"limits\.max_failures=5; the last .* not today"):
            forked.run(tracked("provider=openai", "name=refused", *overrides), tmp_path)
        run = experiment.run
        assert (run.info.status, run.data.tags["error.type"]) == ("FAILED", "TooManyFailuresError")
        service.fault = lambda *_: None
        forked.resume(tmp_path)
    assert experiment.run.info.run_id == run.info.run_id
    assert experiment.run.info.status == "FINISHED"
    assert "error.type" not in experiment.run.data.tags
    assert experiment.run.data.metrics["completed_prompts"] == 64


def test_a_run_whose_tracking_file_is_lost_is_found_again_by_its_key(tracked: Compose, store: str, tmp_path: Path):
    result = forked.run(tracked("provider=echo", "name=by-key"), tmp_path)
    (tmp_path / "tracking.json").unlink()
    again = forked.resume(tmp_path)
    experiment = StoredExperiment(client=MlflowClient(store), name="by-key")
    assert again.mlflow_run == result.mlflow_run
    assert experiment.run.info.run_id == result.summary.mlflow_run_id
    assert experiment.run.data.tags["runner.directory"] == str(tmp_path)


def test_a_deleted_experiment_is_named_and_nothing_is_lost(
    tracked: Compose, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    client = MlflowClient(store)
    experiment_id = client.create_experiment("deleted")
    client.delete_experiment(experiment_id)
    assert forked.run(tracked("provider=echo", "name=deleted"), tmp_path).status == "FINISHED"
    assert "this MLflow experiment is deleted: restore it" in caplog.text
    client.restore_experiment(experiment_id)
    forked.resume(tmp_path)
    assert StoredExperiment(client=client, name="deleted").run.info.status == "FINISHED"
