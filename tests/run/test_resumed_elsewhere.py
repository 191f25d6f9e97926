"""A resumed run goes on with what it began with: server, region, device, model; and where its folder lies now."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from runner import app
from runner.errors import RecordError
from runner.record.folder import RunFolder
from runner.record.manifest import environment_changes, resolved_changes
from tests.conftest import Compose
from tests.factories import prompts_file
from tests.servers.openai_server import KEY, OpenAIServer
from tests.tracking import forked


def _leave_one(run: Path) -> None:
    """Cut the outcomes of a run so that it has one prompt left to generate."""
    outcomes = run / "outcomes.jsonl"
    outcomes.write_bytes(b"".join(outcomes.read_bytes().splitlines(keepends=True)[:-1]))


def test_a_run_that_began_at_one_server_goes_on_at_another_only_when_accepted(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAIServer() as first, OpenAIServer() as second:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{first.url}/v1")
        app.run(config("provider=openai", *prompts_file(tmp_path, 3)), tmp_path / "run")
        _leave_one(tmp_path / "run")
        environment = (tmp_path / "run" / "environment.json").read_bytes()
        monkeypatch.setenv("OPENAI_BASE_URL", f"{second.url}/v1")
        with pytest.raises(RecordError, match=rf"provider\.base_url: {first.url}/v1 before, {second.url}/v1 now") as e:
            app.resume(tmp_path / "run")
        assert "--accept-endpoint" in str(e.value)
        assert not second.asked
        assert (tmp_path / "run" / "environment.json").read_bytes() == environment
        result = app.resume(tmp_path / "run", accept_changes=True)
        assert (result.status, len(first.asked), len(second.asked)) == ("FINISHED", 3, 1)
    kept = [environment["provider"]["base_url"] for environment in RunFolder(tmp_path / "run").read_environments()]
    assert kept == [f"{first.url}/v1", f"{second.url}/v1"]


@pytest.mark.parametrize(
    ("name", "before", "now", "refused"),
    [
        ("base_url", "https://a/v1", "https://b/v1", True),
        ("endpoint", "https://bedrock-runtime.us-east-1.amazonaws.com", "http://localhost:1", True),
        ("region", "us-east-1", "eu-west-1", True),
        ("device", "cpu", "cuda:0", True),
        ("dtype", "float32", "bfloat16", True),
        ("model_revision", "abc", "def", True),
        ("device", "cuda:0", "cuda:1", False),
        ("profile", "team", "own", False),
        ("gpu", "H100", "H200", False),
    ],
)
def test_what_decides_the_answers_is_refused_and_what_does_not_is_said(name: str, before: str, now: str, refused: bool):
    old, new = ({"os": "x", "provider": {name: value, "threads": 2}} for value in (before, now))
    said = f"provider.{name}: {before} before, {now} now"
    assert resolved_changes(old, new) == ([said] if refused else [])
    assert environment_changes(old, new) == [said]
    assert resolved_changes(old, old) == environment_changes(old, old) == []


@pytest.mark.parametrize("before", [{}, {"provider": None}, {"provider": {}}])
def test_what_an_earlier_version_did_not_record_has_not_changed(before: dict[str, Any]):
    assert resolved_changes(before, {"provider": {"region": "eu-west-1"}}) == []


def test_outputs_that_were_moved_are_published_at_their_new_place_from_any_directory(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    old, new, elsewhere = tmp_path / "old", tmp_path / "new", tmp_path / "elsewhere"
    for folder in (old, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(old)
    Path("p.txt").write_text("one\ntwo\n")
    settings = ("prompts=file", "prompts.path=p.txt", "tracking.traces=off", "name=moved")
    forked.run(config("provider=echo", "tracking.uri=sqlite:///outputs/mlflow.db", *settings), Path("outputs/runs/1"))
    manifest = json.loads((old / "outputs/runs/1/run.json").read_bytes())
    assert (manifest["working_dir"], manifest["folder"]) == (str(old), "outputs/runs/1")
    old.rename(new)
    monkeypatch.chdir(elsewhere)
    run = new / "outputs" / "runs" / "1"
    _leave_one(run)
    (new / "p.txt").write_text("one\nanother\n")
    with pytest.raises(RecordError, match=rf"prompts\.path='{new}/p\.txt' is not what the run began with"):
        forked.resume(run)
    (new / "p.txt").write_text("one\ntwo\n")
    result = forked.resume(run)
    assert (result.status, result.is_published) == ("FINISHED", True)
    left = [path.name for path in (old / "outputs").iterdir()] if old.exists() else []
    assert set(left) <= {"artifacts"}, "MLflow keeps the place of an experiment's artifacts as it was at the start"
    assert not list(elsewhere.iterdir())
    client = MlflowClient(f"sqlite:///{new}/outputs/mlflow.db")
    published = client.get_run(str(result.summary.mlflow_run_id))
    assert published.data.tags["runner.directory"] == str(run)
    assert published.data.metrics["completed_prompts"] == 2
