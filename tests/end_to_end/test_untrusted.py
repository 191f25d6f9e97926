"""Prompts and answers that nobody vetted: kept as they are, shown as plain text, published to MLflow without harm."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from runner import app
from runner.cli.observer import TerminalObserver
from runner.errors import ConfigError
from runner.record.folder import RunFolder
from runner.types import Completion, Failure
from tests.conftest import Compose
from tests.servers.openai_server import OpenAIServer

TEXTS = {
    "ansi": "red\x1b[31m \x1b]0;title\x07 \x1b[2J end",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9b31m\x85 end",
    "nul": "before\0after",
    "surrogate": "half \ud800 of a pair",
    "pair": "whole \U0001f600",
    "separators": "line\u2028paragraph\u2029 next\u0085 line",
    "direction": "abc\u202egnp.exe \u200b\ufeff",
    "markup": "[bold]x[/bold] [/] [link=http://127.0.0.1]y[/link] [red",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>&amp;",
    "braces": "${oc.env:HOME} {0} %s %(x)s $(id) `id`",
    "json": '{"prompt_id": "x", "error": null}\n{"prompt_id": "y"}\r\n',
    "long": "a" * 1_000_000,
    "odd id \x1b[31m [bold] \ud800 \0": "the id is the odd one",
}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """The texts as a prompt file, with every character that JSON can escape escaped."""
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"id": name, "prompt": text}) + "\n" for name, text in TEXTS.items()))
    return path


def echoed(text: str) -> str:
    return " ".join(text.split())


def shows_no_commands(shown: str) -> bool:
    """Return whether a terminal is shown text only: no control characters but line ends, C1 controls included."""
    return not any((char < " " and char != "\n") or "\x7f" <= char <= "\x9f" for char in shown)


def test_odd_texts_are_kept_as_they_are_and_shown_as_plain_text(
    config: Compose, prompts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    configuration = config("provider=echo", "prompts=file", f"prompts.path={prompts}")
    app.run(configuration, tmp_path / "run", observer=TerminalObserver())
    assert {prompt.id: prompt.text for prompt in RunFolder(tmp_path / "run").read_prompts()} == TEXTS
    outcomes = {outcome.prompt_id: outcome for outcome in RunFolder(tmp_path / "run").outcomes.read()}
    assert {name: outcome.text for name, outcome in outcomes.items() if isinstance(outcome, Completion)} == {
        name: echoed(text) for name, text in TEXTS.items()
    }
    for file in ("outcomes.jsonl", "prompts.jsonl"):
        lines = (tmp_path / "run" / file).read_bytes().splitlines(keepends=True)
        assert len(lines) == len(TEXTS), "one line each, whatever stands in them"
        assert all(isinstance(json.loads(line), dict) for line in lines)
    resumed = app.resume(tmp_path / "run", observer=TerminalObserver())
    assert resumed.metrics["completed_prompts"] == len(TEXTS)
    printed = capfd.readouterr()
    assert "red" in printed.out
    assert shows_no_commands("".join(printed))


@settings(max_examples=12)
@given(texts=st.lists(st.text(st.characters(), min_size=1, max_size=50).filter(str.strip), min_size=1, max_size=4))
def test_any_text_goes_through_a_run_and_back(
    texts: list[str], config: Compose, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("any")
    (folder / "p.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    app.run(config("provider=echo", "prompts=file", f"prompts.path={folder / 'p.jsonl'}"), folder / "run")
    assert [prompt.text for prompt in RunFolder(folder / "run").read_prompts()] == texts
    kept = {o.prompt_id: o.text for o in RunFolder(folder / "run").outcomes.read() if isinstance(o, Completion)}
    assert kept == {str(place): echoed(text) for place, text in enumerate(texts)}


def test_the_command_shows_odd_texts_and_errors_without_escapes(prompts: Path, tmp_path: Path):
    arguments = ["provider=echo", "provider.fail_on=red", "prompts=file", f"prompts.path={prompts}", "tracking=off"]
    done = subprocess.run(
        [sys.executable, "-m", "runner", *arguments, "hydra.run.dir=run"],
        cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert shows_no_commands(done.stdout + done.stderr)
    changed = prompts.read_text().replace("the odd one", "the \\u001b[32mgreen one")
    prompts.write_text(changed)
    again = subprocess.run(
        [sys.executable, "-m", "runner.resume", "run"],
        cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert again.returncode == 2
    assert "green one" in again.stderr
    assert shows_no_commands(again.stdout + again.stderr)


def test_odd_texts_reach_mlflow_as_table_and_traces(tracked: Compose, store: str, prompts: Path, tmp_path: Path):
    configuration = tracked(
        "provider=echo", "tracking.traces=all", "name=odd", "prompts=file", f"prompts.path={prompts}",
        "provider.fail_on=half",
    )  # fmt: skip
    result = app.run(configuration, tmp_path / "run")
    run_id = str(result.summary.mlflow_run_id)
    client = MlflowClient(store)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert {artifact.path for artifact in client.list_artifacts(run_id)} >= {"outputs.json", "outcomes.jsonl"}
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment("odd")
    table = mlflow.load_table("outputs.json", run_ids=[run_id])
    assert len(table) == len(TEXTS)
    shown = dict(zip(table["prompt_id"], table["text"], strict=True))
    assert {name: shown[name] for name in ("ansi", "markup", "html", "long")} == {
        name: echoed(TEXTS[name]) for name in ("ansi", "markup", "html", "long")
    }
    traces = client.search_traces(locations=[run.info.experiment_id], max_results=100)
    assert len(traces) == len(TEXTS)
    inputs = {span.attributes["prompt_id"]: span.inputs for trace in traces for span in trace.data.spans}
    assert inputs["html"]["messages"][0]["content"] == TEXTS["html"]


def test_a_prompt_that_cannot_be_sent_is_one_failure_that_says_why(
    config: Compose, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    with OpenAIServer() as server:
        address = f"provider.base_url={server.url}/v1"
        app.run(config("provider=openai", address, "prompts=file", f"prompts.path={prompts}"), tmp_path / "run")
    outcomes = {outcome.prompt_id: outcome for outcome in RunFolder(tmp_path / "run").outcomes.read()}
    assert set(outcomes) == set(TEXTS)
    (failed,) = [outcome for outcome in outcomes.values() if isinstance(outcome, Failure)]
    assert (failed.prompt_id, failed.error.retryable, failed.attempts) == ("surrogate", False, 1)
    assert "surrogate" in failed.error.message
    assert "UTF-8" in failed.error.message
    for name in ("ansi", "nul", "html", "long"):
        answered = outcomes[name]
        assert isinstance(answered, Completion)
        assert answered.text == echoed(TEXTS[name])


@pytest.mark.parametrize(
    "target",
    ["os.system", "subprocess.run", "runner.app.run", "runner.providers.factory.build.x", "tests.factories.timing"],
)
def test_only_a_provider_of_the_runner_can_be_a_target(target: str, config: Any):
    with pytest.raises(ConfigError, match=r"provider\._target_"):
        config("provider=echo", f"provider._target_={target}")


@pytest.mark.parametrize("target", ["runner.providers.factory.build", "runner.providers.errors.CallError"])
def test_what_is_no_provider_among_the_providers_is_refused(target: str, config: Compose, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"provider\._target_=.* is not a provider"):
        app.run(config("provider=echo", f"provider._target_={target}"), tmp_path)
