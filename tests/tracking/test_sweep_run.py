"""The parent run of a sweep: one, whoever comes first, and found again where its file is damaged."""

from pathlib import Path

from mlflow import MlflowClient

from runner.tracking import sweep_run
from runner.tracking.store import open_store
from runner.tracking.sweep_run import SweepReport
from tests.conftest import Compose
from tests.servers.mlflow_server import StoredExperiment

REPORT = SweepReport(
    note="# Sweep",
    table=[{"run": "0"}],
    files=[],
    curves=[("by batch size/x", size, 1.0) for size in (1, 4)],
    metrics={},
)


def test_all_jobs_join_one_parent_and_a_damaged_file_is_written_again(tracked: Compose, store: str, tmp_path: Path):
    config = tracked("name=joined-jobs")
    opened = open_store(store, config.name)
    parent = sweep_run.join(tmp_path, opened, config)
    assert sweep_run.join(tmp_path, opened, config) == parent
    for damaged in ("", "[]", '{"uri": "x"}'):
        (tmp_path / "sweep.json").write_text(damaged)
        assert sweep_run.join(tmp_path, opened, config) == parent
    experiment = StoredExperiment(client=MlflowClient(store), name=config.name)
    assert experiment.run.info.run_id == parent
    assert experiment.run.data.tags["sweep.dir"] == str(tmp_path)
    for _ in range(2):  # publishing again adds nothing
        reference = sweep_run.finish(tmp_path, REPORT, status="FINISHED")
        assert reference is not None
        assert reference.run_id == parent
        assert {step: len(values) for (_, step), values in experiment.points("by batch size/").items()} == {1: 1, 4: 1}
    assert experiment.run.info.status == "FINISHED"
    assert experiment.run.data.tags["mlflow.note.content"] == "# Sweep"
    assert experiment.artifacts() == {"table.json"}


def test_a_sweep_that_no_job_joined_has_no_parent_to_end(tmp_path: Path):
    assert sweep_run.finish(tmp_path, REPORT, status="FAILED") is None
