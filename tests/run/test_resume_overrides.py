"""A resume may change what stopped the run, and nothing that moves a text."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from runner import app
from runner.cli.compose import parse_overrides
from runner.cli.foreign import refuse_foreign
from runner.config.schema import RunConfig
from runner.errors import BudgetError, ConfigError, RecordError, TooManyFailuresError
from runner.record.folder import CONFIG, MANIFEST, OUTCOMES, SEGMENTS, RunFolder
from tests import processes
from tests.conftest import Compose
from tests.factories import DEAR
from tests.run.running import Running
from tests.servers.openai_server import OpenAIServer
from tests.tracking import forked

REFUSED = {
    # override: what the message must contain
    "generation.max_tokens=8": "keeps generation.max_tokens=64",
    "seed=1": "keeps seed=0",
    "model.id=other": "keeps model.id='echo'",
    "provider.latency_s=1": "keeps provider.latency_s=0",
    "batch.size=4": "the prompts of a batch may move each other's texts",
    "batch.order=given": "keeps batch.order='length'",
    "name=x": "it says where the run is kept",
    "tracking.traces=all": "it says where the run is kept",
    "tracking.uri=sqlite:////dev/null": "it is no regular file",
    "tracking.uri=http://me:planted-secret@host": "would be written to disk",
    "limits=1": "set one of its keys: limits.max_attempts",
    "limits.max_cost=1": "did you mean 'limits.max_cost_usd'",
    "limits.timeout_s=-1": "limits.timeout_s=-1",
    "batch.sise=1": "did you mean 'batch.size'",
    "nonsense=1": "unknown key 'nonsense'",
    "+limits.timeout_s=1": "give KEY=VALUE",
    "limits.timeout_s=1,2": "give KEY=VALUE",
    "provider.api_key=planted-secret": "environment variable",
}


@pytest.fixture(scope="module")
def static_run(config: Compose, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of echo in mode static."""
    folder = tmp_path_factory.mktemp("static")
    app.run(config("provider=echo", "batch.mode=static", "prompts=memo"), folder)
    return folder


@pytest.mark.parametrize("override", REFUSED)
def test_a_key_that_moves_texts_is_refused_with_the_reason(override: str, static_run: Path):
    before = {path.name: path.read_bytes() for path in static_run.iterdir()}
    with pytest.raises(ConfigError, match=re.escape(REFUSED[override])) as refused:
        app.resume(static_run, overrides=parse_overrides([override]))
    assert "planted-secret" not in str(refused.value)
    assert {name: (static_run / name).read_bytes() for name in before} == before


def test_the_command_refuses_it_in_one_message(static_run: Path):
    done = processes.run(["runner.resume", str(static_run), "seed=1"], cwd=static_run)
    assert done.returncode == 2
    assert done.stderr.startswith("error: seed: a resumed run keeps seed=0")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    with OpenAIServer() as made:
        yield made


def hosted(config: Compose, server: OpenAIServer, *overrides: str) -> RunConfig:
    where = ("provider=openai", f"provider.base_url={server.url}/v1", "batch.size=2", "prompts.limit=12")
    return config(*where, *overrides)


def test_a_run_that_its_budget_stopped_goes_on_with_a_higher_one_and_pays_for_nothing_twice(
    server: OpenAIServer, config: Compose, tmp_path: Path
):
    with pytest.raises(BudgetError, match=r"python -m runner.resume RUN limits.max_cost_usd=USD"):
        app.run(hosted(config, server, DEAR, "limits.max_cost_usd=0.6"), tmp_path / "run")
    answered = len(list(RunFolder(tmp_path / "run").outcomes.read()))
    assert 0 < answered < 12
    before = {name: (tmp_path / "run" / name).read_bytes() for name in (MANIFEST, CONFIG)}
    again = processes.run(["runner.resume", "run"], cwd=tmp_path)
    assert again.returncode == 1
    assert "python -m runner.resume run limits.max_cost_usd=USD\n" in again.stderr
    done = processes.run(["runner.resume", "run", "limits.max_cost_usd=100", "batch.size=3"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(server.asked) == 12
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before
    segments = RunFolder(tmp_path / "run").read_segments()
    assert [segment.overrides for segment in segments][-1] == {"limits.max_cost_usd": 100, "batch.size": 3}
    assert segments[0].overrides == {}


def test_a_run_with_too_many_failures_goes_on_with_a_higher_limit(
    server: OpenAIServer, config: Compose, tmp_path: Path
):
    server.fault = lambda *_: {"status": 400, "body": {"error": {"message": "no"}}}
    with pytest.raises(TooManyFailuresError, match=r"runner.resume RUN limits.max_failures=N"):
        app.run(hosted(config, server, "limits.max_failures=1"), tmp_path / "run")
    server.fault = lambda number, _: {"status": 400, "body": {"error": {"message": "no"}}} if number % 3 == 0 else None
    result = app.resume(tmp_path / "run", overrides={"limits.max_failures": 8})
    assert result.metrics["completed_prompts"] + result.metrics["failed_prompts"] == 12
    assert result.metrics["failed_prompts"] > 1


def test_a_price_may_be_given_later(config: Compose, tmp_path: Path):
    app.run(config("provider=echo", "batch.mode=concurrent", "provider.fail_on=Write"), tmp_path / "run")
    result = app.resume(tmp_path / "run", overrides={"model.price": {"usd_per_hour": 3600}, "batch.size": 4})
    assert result.metrics["cost_usd"] == pytest.approx(result.metrics["duration_s"])  # a dollar a second


def test_a_wrong_value_names_its_key(config: Compose, tmp_path: Path):
    app.run(config("provider=echo", "prompts=memo"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"batch.size=0"):
        app.resume(tmp_path / "run", overrides={"batch.size": 0})


def test_a_run_may_be_published_to_another_store(config: Compose, store: str, tmp_path: Path):
    """The first store is not reached, because making a store costs seconds: its sweep's parent run is in it."""
    sweep = tmp_path / "s"
    began = config("provider=echo", "tracking.traces=off", "name=two-stores", "prompts.limit=4")
    app.run(began, sweep / "0", sweep_dir=sweep)
    parent = {"uri": f"sqlite:///{tmp_path}/first.db", "experiment": "two-stores", "run_id": "0" * 32}
    (sweep / "sweep.json").write_text(json.dumps(parent))
    lines = (sweep / "0" / OUTCOMES).read_bytes().splitlines(keepends=True)
    (sweep / "0" / OUTCOMES).write_bytes(b"".join(lines[:3]))
    result = forked.resume(sweep / "0", overrides={"tracking.uri": store})
    reference = result.mlflow_run
    assert reference is not None
    assert (result.is_published, reference.uri) == (True, store)
    published = MlflowClient(store).get_run(reference.run_id)
    assert (published.info.status, published.data.metrics["completed_prompts"]) == ("FINISHED", 4)
    assert "mlflow.parentRunId" not in published.data.tags
    assert [segment.overrides for segment in RunFolder(sweep / "0").read_segments()] == [{}, {"tracking.uri": store}]
    assert not (tmp_path / "first.db").exists()


def test_the_store_that_a_foreign_record_names_needs_no_consent_where_another_is_given(config: Compose, tmp_path: Path):
    app.run(config("provider=echo", "prompts=memo"), tmp_path / "run")
    (tmp_path / "run" / "run.hmac").unlink()
    for name in (MANIFEST, CONFIG):
        record = yaml.safe_load((tmp_path / "run" / name).read_bytes())
        (record["config"] if name == MANIFEST else record)["tracking"]["uri"] = "http://127.0.0.1:9"
        (tmp_path / "run" / name).write_text(json.dumps(record))
    with pytest.raises(RecordError, match=r"tracking.uri='http://127.0.0.1:9'"):
        refuse_foreign(RunFolder(tmp_path / "run"), accepted=False)
    done = processes.run(["runner.resume", "run", "tracking.uri=null"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "127.0.0.1:9" not in done.stderr


def test_what_a_killed_process_changed_is_on_record(server: OpenAIServer, tmp_path: Path):
    server.first_token_s = 0.2
    running = Running(tmp_path, server, "tracking=off", "prompts.limit=24", "hydra.run.dir=run")
    running.wait_for_requests(8)
    running.process.kill()
    running.process.communicate()
    environment = os.environ | {"OPENAI_API_KEY": "planted"}
    command = ["runner.resume", "run", "batch.size=2", "limits.timeout_s=5"]
    with processes.start(command, cwd=tmp_path, env=environment) as resumed:
        asked = len(server.asked)
        while len(server.asked) < asked + 6:
            time.sleep(0.005)
        resumed.kill()
        resumed.communicate()
    (segment,) = json.loads((tmp_path / "run" / SEGMENTS).read_text())["segments"]
    changed = {"batch.size": 2, "limits.timeout_s": 5}
    assert (segment["number"], segment["duration_s"], segment["overrides"]) == (1, None, changed)
    result = app.resume(tmp_path / "run")
    assert result.metrics["completed_prompts"] == 24
    assert [segment.overrides for segment in RunFolder(tmp_path / "run").read_segments()] == [changed, {}]
