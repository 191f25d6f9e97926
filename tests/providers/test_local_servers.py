"""provider=openai against servers that others wrote: a real model behind `transformers serve`, and LLMock's limits."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.providers.transformers import embedded
from tests.conftest import Compose, Runner
from tests.factories import questions_file


@contextmanager
def serving(command: list[str], health: str) -> Iterator[str]:
    """Run a server until it answers at `health`, and end it after use; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(url + health, timeout=1).close()  # noqa: S310 - an address of ours
                    break
                except OSError:
                    assert process.poll() is None, process.stderr and process.stderr.read().decode()[-2000:]
                    time.sleep(0.3)
            yield url
        finally:
            process.terminate()


def outcomes(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()
    return {outcome["prompt_id"]: outcome for outcome in map(json.loads, lines)}


@pytest.mark.real_model
def test_a_served_model_gives_the_texts_that_it_gives_in_process(run_command: Runner, config: Compose, tmp_path: Path):
    folder = embedded.resolve("embedded/SmolLM2-135M-Instruct")
    transformers = str(Path(sys.executable).parent / "transformers")
    command = [transformers, "serve", folder, "--host", "127.0.0.1", "--dtype", "float32", "--device", "cpu"]
    few = (*questions_file(tmp_path), "prompts.limit=6", "generation.max_tokens=12", "batch.size=1")
    with serving(command, "/health") as url:
        hosted = ("provider=transformers-serve", f"provider.base_url={url}/v1", f"model.id={folder}")
        served = run_command(*hosted, *few, "hydra.run.dir=served", "limits.timeout_s=120")
    assert served.returncode == 0, served.stderr
    app.run(config("provider.dtype=float32", *few), tmp_path / "local")
    there, here = outcomes(tmp_path / "served"), outcomes(tmp_path / "local")
    assert there.keys() == here.keys()
    for prompt_id, outcome in there.items():
        assert outcome["text"] == here[prompt_id]["text"], prompt_id
        assert outcome["input_tokens"] == here[prompt_id]["input_tokens"], prompt_id
        assert outcome["time_to_first_token_s"] > 0


def test_a_run_under_a_services_rate_limit_completes(run_command: Runner, tmp_path: Path):
    llmock = str(Path(sys.executable).parent / "llmock")
    with serving([llmock, "serve", "--host", "127.0.0.1", "--rpm", "30"], "/health") as url:
        hosted = (
            "provider=openai",
            f"provider.base_url={url}/v1",
            "model.id=gpt-4o-mini",
            "prompts.limit=32",
            "batch.size=8",
        )
        done = run_command(*hosted, "limits.max_attempts=20", "hydra.run.dir=out", OPENAI_API_KEY="none")
    assert done.returncode == 0, done.stderr
    by_prompt = outcomes(tmp_path / "out")
    assert len(by_prompt) == 32
    assert max(outcome["attempts"] for outcome in by_prompt.values()) > 1, "the limit was met"
    log = (tmp_path / "out" / "runner.log").read_text()
    assert "429" in log, "every retry's reason is on record"
