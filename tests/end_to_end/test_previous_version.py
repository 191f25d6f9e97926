"""Run folders of the previous version are read, resumed and compared by the code of now."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.record.folder import RunFolder
from runner.types import Completion, Failure
from tests import processes
from tests.factories import summary_of

RECORDED = Path(__file__).parents[1] / "data" / "previous_version"
RUNS = ("finished", "killed", "failed", "failed_prompts", "sweep/0", "sweep/1")
IDS = [f"p{number}" for number in range(8)]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Copies of the run folders, in the folder where their commands are given now."""
    shutil.copytree(RECORDED, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_text(encoding="utf-8")
            path.write_text(
                content.replace("{WORKING_DIR}", str(tmp_path)).replace("{HOST}", os.uname().nodename),
                encoding="utf-8",
            )
    return tmp_path


@pytest.mark.parametrize("run", RUNS)
def test_every_file_is_read(run: str, old: Path):
    folder = RunFolder(old / run)
    manifest = folder.read_manifest()
    assert manifest.config == folder.read_config()
    assert [prompt.id for prompt in folder.read_prompts()] == IDS
    assert folder.read_prompts().sha256 == manifest.prompts["sha256"]
    assert folder.read_environment()["provider"]["gen_ai.provider.name"] == "echo"
    lines = [json.loads(line) for line in folder.outcomes.path.read_text(encoding="utf-8").splitlines()]
    outcomes = list(folder.outcomes.read())
    assert [outcome.prompt_id for outcome in outcomes] == [line["prompt_id"] for line in lines]
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [line["error"] is not None for line in lines]
    if run != "killed":
        assert summary_of(old / run).status == ("FAILED" if run == "failed" else "FINISHED")
        (segment,) = folder.read_segments()
        assert segment.duration_s == summary_of(old / run).metrics["duration_s"]


@pytest.mark.parametrize("run", ["finished", "sweep/0", "sweep/1"])
def test_a_finished_run_has_nothing_to_resume_and_keeps_its_metrics(run: str, old: Path):
    folder = RunFolder(old / run)
    outcomes, before = folder.outcomes.path.read_bytes(), summary_of(old / run)
    done = processes.run(["runner.resume", run], cwd=old)
    assert done.returncode == 0, done.stderr
    assert folder.outcomes.path.read_bytes() == outcomes
    after = summary_of(old / run)
    assert replace(after, metrics=before.metrics) == before
    assert {name: after.metrics[name] for name in before.metrics} == pytest.approx(before.metrics)
    assert after.metrics["latency_samples"] == 8, "what is counted now and was not then"
    assert "first_call_ratio" in after.metrics
    total_tokens = before.metrics["input_tokens"] + before.metrics["output_tokens"]
    assert after.metrics["total_tokens_per_s"] == pytest.approx(total_tokens / before.metrics["duration_s"])
    absent = {"queued_p50_s", "inter_chunk_latency_p50_s", "reasoning_tokens", "cost_at_most_usd"}
    assert not absent & after.metrics.keys(), "the record does not have it"


def test_a_killed_run_is_resumed_and_keeps_what_it_had(old: Path):
    folder = RunFolder(old / "killed")
    before = folder.outcomes.path.read_bytes()
    assert before.count(b"\n") == 3
    done = processes.run(["runner.resume", "killed"], cwd=old)
    assert done.returncode == 0, done.stderr
    assert folder.outcomes.path.read_bytes().startswith(before)
    outcomes = list(folder.outcomes.read())
    assert [outcome.prompt_id for outcome in outcomes] == IDS
    assert [outcome.segment for outcome in outcomes] == [0] * 3 + [1] * 5
    texts = {prompt.id: prompt.text for prompt in folder.read_prompts()}
    assert {outcome.prompt_id: outcome.text for outcome in outcomes if isinstance(outcome, Completion)} == texts
    summary = summary_of(old / "killed")
    assert (summary.status, summary.metrics["completed_prompts"]) == ("FINISHED", 8)
    assert not (old / "killed" / "run.lock").exists()


def test_failed_prompts_are_tried_again_or_kept(old: Path):
    folder = RunFolder(old / "failed_prompts")
    before = folder.outcomes.path.read_bytes()
    done = processes.run(["runner.resume", "failed_prompts", "--keep-failures"], cwd=old)
    assert (done.returncode, folder.outcomes.path.read_bytes()) == (1, before), done.stderr
    done = processes.run(["runner.resume", "failed_prompts"], cwd=old)
    assert done.returncode == 1, "provider.fail_on is as it was"
    (failure,) = (outcome for outcome in folder.outcomes.read() if isinstance(outcome, Failure))
    assert (failure.prompt_id, failure.error.type, failure.segment) == ("p3", "EchoRefused", 1)
    assert summary_of(old / "failed_prompts").metrics["completed_prompts"] == 7


def test_a_run_that_its_failures_stopped_is_resumed_under_the_same_limit(old: Path):
    folder = RunFolder(old / "failed")
    before = folder.outcomes.path.read_bytes()
    done = processes.run(["runner.resume", "failed"], cwd=old)
    assert done.returncode == 1
    assert "limits.max_failures=2" in done.stderr
    assert "Traceback" not in done.stderr
    assert folder.outcomes.path.read_bytes().startswith(before)
    assert (summary_of(old / "failed").error or {})["type"] == "TooManyFailuresError"


def compared(old: Path, *folders: str) -> Any:
    done = processes.run(["runner.compare", *folders, "--output", "compared", "--json"], cwd=old)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_sweep_is_compared(old: Path):
    comparison = compared(old, "sweep")
    assert [Path(run["folder"]).name for run in comparison["runs"]] == ["0", "1"]
    for run in comparison["runs"]:
        recorded = summary_of(old / "sweep" / Path(run["folder"]).name).metrics
        assert {name: run["metrics"][name] for name in recorded} == recorded


def test_runs_of_both_versions_are_compared_and_their_texts_are_the_same(old: Path):
    source = ("prompts=file", "prompts.path=prompts.jsonl", "batch.size=2")
    done = processes.run(["runner", "provider=echo", "tracking=off", *source, "hydra.run.dir=new"], cwd=old)
    assert done.returncode == 0, done.stderr
    new = [(outcome.prompt_id, getattr(outcome, "text", None)) for outcome in RunFolder(old / "new").outcomes.read()]
    recorded = RunFolder(old / "finished").outcomes.read()
    assert new == [(outcome.prompt_id, getattr(outcome, "text", None)) for outcome in recorded]
    comparison = compared(old, "finished", "new")
    assert len(comparison["runs"]) == 2
    (pair,) = comparison["compared"]
    assert (pair["asked_differs"], pair["texts"]["equal"], pair["texts"]["differing"]) == ([], 8, 0)
