"""The parent run of a sweep: one, whoever comes first; what a comparison adds replaces what an earlier one added."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from runner import app
from runner.cli import compare
from runner.config.schema import RunConfig
from runner.record.folder import RunFolder
from runner.record.lock import sweep_lock
from runner.record.manifest import MlflowRunRef, RunManifest
from runner.tracking import sweep_run
from runner.tracking.store import Store, open_store
from runner.tracking.sweep_run import SweepReport
from runner.tracking.view import shared_view, view_tag
from tests.conftest import Compose
from tests.servers.mlflow_server import StoredExperiment

REPORT = SweepReport(
    title="Sweep of two sizes",
    note="# Sweep",
    table=[{"run": "0"}],
    files=[],
    curves=[("by batch size/x", size, 1.0) for size in (1, 4)],
    metrics={},
    swept={"batch.size": [1, 4]},
    columns=["prompts_per_s"],
)


def parent(directory: Path, store: Store, config: RunConfig) -> str:
    """Join a sweep whose parent is in this store; return the parent's id."""
    run_id = sweep_run.join(directory, store, config)
    assert run_id is not None
    return run_id


def test_all_jobs_join_one_parent_and_a_damaged_file_is_written_again(tracked: Compose, store: str, tmp_path: Path):
    config = tracked("name=joined-jobs")
    opened = open_store(store, config.name)
    joined = parent(tmp_path, opened, config)
    assert sweep_run.join(tmp_path, opened, config) == joined
    for damaged in ("", "[]", '{"uri": "x"}'):
        (tmp_path / "sweep.json").write_text(damaged)
        assert sweep_run.join(tmp_path, opened, config) == joined
    experiment = StoredExperiment(client=MlflowClient(store), name=config.name)
    assert experiment.run.info.run_id == joined
    assert experiment.run.data.tags["sweep.dir"] == str(tmp_path)
    for _ in range(2):  # publishing again adds nothing
        reference = sweep_run.finish(tmp_path, REPORT, status="FINISHED")
        assert reference is not None
        assert reference.run_id == joined
        assert {step: len(values) for (_, step), values in experiment.points("by batch size/").items()} == {1: 1, 4: 1}
    assert experiment.run.info.status == "FINISHED"
    assert experiment.run.data.tags["mlflow.note.content"] == "# Sweep"
    assert experiment.artifacts() == {"table.json"}
    assert experiment.run.data.params == {"batch.size": "[1, 4]"}


def test_a_sweep_in_a_folder_with_quotes_has_one_parent(tracked: Compose, store: str, tmp_path: Path):
    opened = open_store(store, "quoted")
    for name in ("it's", 'a "word"', 'it\'s "both"'):
        (tmp_path / name).mkdir()
        joined = sweep_run.join(tmp_path / name, opened, tracked("name=quoted"))
        (tmp_path / name / "sweep.json").unlink()
        assert sweep_run.join(tmp_path / name, opened, tracked("name=quoted")) == joined


def test_the_next_sweep_ends_the_parent_of_one_whose_process_is_gone(tracked: Compose, store: str, tmp_path: Path):
    opened, config = open_store(store, "abandoned"), tracked("name=abandoned")
    parents = {}
    for name in ("gone", "alive", "ended", "unknown", "next"):
        (tmp_path / name).mkdir()
    with sweep_lock(tmp_path / "gone"), sweep_lock(tmp_path / "alive"), sweep_lock(tmp_path / "ended"):
        for name in ("gone", "alive", "ended", "unknown"):
            parents[name] = parent(tmp_path / name, opened, config)
    sweep_run.end(tmp_path / "ended", status="FINISHED")
    with sweep_lock(tmp_path / "alive"):
        parents["next"] = parent(tmp_path / "next", opened, config)
    statuses = {name: opened.client.get_run(run_id).info.status for name, run_id in parents.items()}
    running = dict.fromkeys(("alive", "unknown", "next"), "RUNNING")
    assert statuses == {"gone": "KILLED", "ended": "FINISHED", **running}


def test_the_next_sweep_leaves_the_parent_of_a_colleague_running(tracked: Compose, store: str, tmp_path: Path):
    opened, config = open_store(store, "shared"), tracked("name=shared")
    for name in ("colleague", "ours", "next"):
        (tmp_path / name).mkdir()
    with sweep_lock(tmp_path / "colleague"), sweep_lock(tmp_path / "ours"):
        colleague, ours = (parent(tmp_path / name, opened, config) for name in ("colleague", "ours"))
    (tmp_path / "colleague" / "sweep.hmac").unlink()
    other = opened.client.create_run(opened.experiment_id, tags={"sweep.dir": str(tmp_path / "ours")}).info.run_id
    parent(tmp_path / "next", opened, config)
    statuses = [opened.client.get_run(run_id).info.status for run_id in (colleague, other, ours)]
    assert statuses == ["RUNNING", "RUNNING", "KILLED"], "the other is of a machine with a folder of the same name"


def test_a_sweep_that_no_job_joined_has_no_parent_to_end(tmp_path: Path):
    assert sweep_run.finish(tmp_path, REPORT, status="FAILED") is None


def write_job(folder: Path, reference: MlflowRunRef, *, key: str) -> None:
    """Write what a job's folder has of its MLflow run."""
    folder.mkdir()
    prompts = dict.fromkeys(("name", "source", "sha256", "count", "file_sha256"))
    manifest = RunManifest(
        key=key, name="job", config={}, prompts=prompts, tags={}, sweep_dir=None, working_dir=str(folder)
    )
    RunFolder(folder).write_manifest(manifest)
    RunFolder(folder).write_mlflow_run(reference)


@pytest.mark.parametrize("signed", [True, False])
def test_a_tracking_json_from_elsewhere_chooses_neither_store_nor_run(
    signed: bool, tracked: Compose, store: str, tmp_path: Path
):
    opened = open_store(store, "whose-run")
    parent(tmp_path, opened, tracked("name=whose-run"))
    victim, job = (opened.find_or_create_run(f"{key} {signed}", "r", {}) for key in ("victim", "job"))
    elsewhere = replace(victim.reference, uri=f"sqlite:///{tmp_path}/elsewhere.db")
    write_job(tmp_path / "0", elsewhere, key=f"job {signed}" if signed else f"victim {signed}")
    if not signed:
        (tmp_path / "0" / "run.hmac").unlink()
    sweep_run.finish(tmp_path, replace(REPORT, metrics={tmp_path / "0": {"speedup": 2.0}}), status="FINISHED")
    written = {run: opened.client.get_run(run.run_id).data.metrics for run in (victim, job)}
    assert written == {victim: {}, job: {"speedup": 2.0} if signed else {}}
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_comparison_published_again_replaces_lower_values_and_leaves_none_that_is_stale(
    tracked: Compose, store: str, tmp_path: Path
):
    opened = open_store(store, "published-again")
    sweep_run.join(tmp_path, opened, tracked("name=published-again"))
    job = opened.find_or_create_run("job", "job", {})
    write_job(tmp_path / "0", job.reference, key="job")

    def published(**metrics: float) -> dict[str, float]:
        sweep_run.finish(tmp_path, replace(REPORT, metrics={tmp_path / "0": metrics}), status="FINISHED")
        logged: dict[str, float] = opened.client.get_run(job.run_id).data.metrics
        return logged

    assert published(speedup=2.0, speedup_low=1.5) == {"speedup": 2.0, "speedup_low": 1.5}
    assert published(speedup=2.0, speedup_low=1.5) == {"speedup": 2.0, "speedup_low": 1.5}
    assert len(opened.client.get_metric_history(job.run_id, "speedup")) == 1, "the same value is one point"
    lower = published(speedup=1.25)
    assert lower["speedup"] == 1.25
    assert math.isnan(lower["speedup_low"])
    for _ in range(2):
        assert all(map(math.isnan, published().values()))
    assert len(opened.client.get_metric_history(job.run_id, "speedup_low")) == 2
    assert published(speedup_low=0.5)["speedup_low"] == 0.5


def test_the_view_of_the_jobs_is_saved_again_unless_a_person_has_changed_it(
    tracked: Compose, store: str, tmp_path: Path
):
    opened = open_store(store, "saved-view")
    joined = parent(tmp_path, opened, tracked("name=saved-view"))
    sweep_run.finish(tmp_path, REPORT, status="FINISHED")
    first = saved_view(opened, joined)
    assert json.loads(first)["name"] == "Sweep of two sizes"
    sweep_run.finish(tmp_path, replace(REPORT, columns=["prompts_per_s", "speedup"]), status="FINISHED")
    second = saved_view(opened, joined)
    assert second != first
    by_hand = json.dumps({**json.loads(second), "updatedAt": json.loads(second)["createdAt"] + 1})
    opened.client.set_experiment_tag(opened.experiment_id, view_tag(joined), by_hand)
    sweep_run.finish(tmp_path, REPORT, status="FINISHED")
    assert saved_view(opened, joined) == by_hand


def saved_view(store: Store, run_id: str) -> str:
    return str(store.client.get_experiment(store.experiment_id).tags[view_tag(run_id)])


def test_a_view_of_many_settings_and_metrics_fits_into_a_tag_of_older_servers_too():
    names = [f"provider.some_setting_{number}" for number in range(40)]
    view = shared_view("0" * 32, title="Sweep", time_ms=0, params=names, metrics=names)
    assert len(view) < 5000


def test_a_comparison_reaches_the_configured_store_of_an_own_sweep_and_no_other_unasked(
    tracked: Compose, config: Compose, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it where a store is chosen
    sweep = tmp_path / "sweep"
    for number, size in (("0", 1), ("1", 2)):
        app.run(config("provider=echo", f"batch.size={size}", "prompts.limit=2"), sweep / number)
    opened = open_store(store, "whose-sweep")
    run_id = parent(sweep, opened, tracked("name=whose-sweep"))

    def published(*flags: str) -> bool:
        opened.client.set_tag(run_id, "mlflow.note.content", "as it was")
        compare.main([str(sweep), *flags])
        return bool(opened.client.get_run(run_id).data.tags["mlflow.note.content"] != "as it was")

    assert not published(), "the store is not the configured one"
    assert "that is not the store of your configuration" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert published()
    content = (sweep / "sweep.json").read_text()
    (sweep / "sweep.json").write_text(content + "\n")
    assert not published(), "somebody has edited the file"
    assert "you did not run the sweep here" in " ".join(capsys.readouterr().out.split())
    assert published("--publish")


@pytest.mark.parametrize("flags", [("--json",), ()], ids=["as JSON", "published"])
@pytest.mark.parametrize("case", ["gone", "alive", "foreign"])
def test_a_comparison_ends_the_parent_that_a_killed_sweep_of_ours_left_running(
    case: str, flags: tuple[str, ...], tracked: Compose, config: Compose, store: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    sweep, opened = tmp_path / "sweep", open_store(store, "left-running")
    app.run(config("provider=echo", "prompts.limit=2"), sweep / "0")
    (sweep / "0" / "summary.json").unlink()  # killed
    with sweep_lock(sweep):
        run_id = parent(sweep, opened, tracked("name=left-running"))
        if case == "alive":
            compare.main([str(sweep), "--json"])
    if case == "foreign":
        (sweep / "sweep.hmac").unlink()
    if case != "alive":
        compare.main([str(sweep), *flags])
    ended = {"gone": "FAILED" if not flags else "KILLED"}
    assert opened.client.get_run(run_id).info.status == ended.get(case, "RUNNING")
    assert (sweep / ".sweep.lock").exists() == (case != "gone"), "an ended sweep is not asked about again"


@pytest.mark.parametrize("flags", [(), ("--publish",)], ids=["unasked", "asked"])
def test_a_comparison_of_a_sweep_that_still_runs_neither_publishes_nor_ends_its_parent(
    flags: tuple[str, ...], tracked: Compose, config: Compose, store: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    sweep, opened = tmp_path / "sweep", open_store(store, "still-runs")
    app.run(config("provider=echo", "prompts.limit=2"), sweep / "0")
    with sweep_lock(sweep):
        run_id = parent(sweep, opened, tracked("name=still-runs"))
        compare.main([str(sweep), *flags])
        run = opened.client.get_run(run_id)
        assert run.info.status == "RUNNING"
        assert "mlflow.note.content" not in run.data.tags
        assert "the sweep still runs" in " ".join(capsys.readouterr().out.split())
    compare.main([str(sweep), *flags])
    assert opened.client.get_run(run_id).info.status != "RUNNING"
