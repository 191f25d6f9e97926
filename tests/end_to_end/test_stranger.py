"""A folder from elsewhere is data: our commands run nothing of it, send nothing, and write nothing outside."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.config.waits import Waits
from runner.record.folder import RunFolder
from tests import processes
from tests.conftest import Compose
from tests.factories import prompts_file
from tests.servers.batch_service import BatchService
from tests.servers.openai_server import KEY, OpenAIServer
from tests.tracking import forked

QUICK = Waits(min_poll_s=0.05, max_poll_s=0.2)
SECRET = "planted-aws-secret-7d21"  # noqa: S105 - planted
PLANTED = "import pathlib, sys\npathlib.Path({canary!r}).write_text(f'{{__name__}} ran in {{sys.argv}}')\n"
MODULES = ("filelock.py", "mlflow.py", "sitecustomize.py", "psutil.py", "torch.py", "json.py", "sqlalchemy.py")


@dataclass(frozen=True)
class Stranger:
    """A tree from elsewhere with a run of two prompts, of which one is still to be sent, and everything that could run.

    Attributes:
        base: the tree's root; the run is `outputs/runs/1` below it.
        canary: a file that exists once anything of the tree was run, or a link in it was followed.
        home: where the user's commands are given.
    """

    base: Path
    canary: Path
    home: Path
    server: OpenAIServer

    @property
    def run(self) -> Path:
        return self.base / "outputs" / "runs" / "1"

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change run.json and config.yaml alike, as their maker can."""
        manifest = json.loads((self.run / "run.json").read_bytes())
        change(manifest["config"])
        (self.run / "run.json").write_text(json.dumps(manifest))
        (self.run / "config.yaml").write_text(json.dumps(manifest["config"]))  # JSON is YAML

    def command(
        self, *arguments: str, cwd: Path | None = None, cold: bool = False, online: bool = False
    ) -> tuple[int, str]:
        """Run a command; return its exit code and what it printed, white space as one blank."""
        environment = os.environ | {"OPENAI_API_KEY": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "COLUMNS": "1000"}
        if online:
            environment |= {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": self.server.url, "HF_TOKEN": SECRET}
        done = processes.run(list(arguments), cwd=cwd or self.home, env=environment, cold=cold)
        return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def stranger(hosted: Compose, tmp_path: Path) -> Iterator[Stranger]:
    base, canary, home = tmp_path / "stranger", tmp_path / "canary", tmp_path / "home"
    base.mkdir()
    home.mkdir()
    with OpenAIServer() as server:
        made = Stranger(base, canary, home, server)
        app.run(hosted(server, *prompts_file(base, 2)), made.run)
        outcomes = made.run / "outcomes.jsonl"
        outcomes.write_bytes(outcomes.read_bytes().splitlines(keepends=True)[0])
        (made.run / "run.hmac").unlink()
        manifest = json.loads((made.run / "run.json").read_bytes()) | {"working_dir": str(base), "sweep_dir": str(home)}
        (made.run / "run.json").write_text(json.dumps(manifest | {"folder": "outputs/runs/1"}))
        _plant(base, canary)
        server.asked.clear()
        yield made


def _plant(base: Path, canary: Path) -> None:
    """Put modules, a package of our own name and a repository with commands into a folder."""
    for name in MODULES:
        (base / name).write_text(PLANTED.format(canary=str(canary)))
    plugins = base / "hydra_plugins" / "planted"
    plugins.mkdir(parents=True)
    (plugins / "__init__.py").write_text(PLANTED.format(canary=str(canary)))
    (base / "monitor").write_text(f"#!/bin/sh\ntouch {canary}\n")
    (base / "monitor").chmod(0o755)
    (base / ".git" / "objects").mkdir(parents=True)
    (base / ".git" / "refs").mkdir()
    (base / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (base / ".git" / "config").write_text(f"[core]\n\trepositoryformatversion = 0\n\tfsmonitor = {base / 'monitor'}\n")


def _is_untouched(stranger: Stranger) -> bool:
    return not stranger.canary.exists() and not stranger.server.asked and not list(stranger.home.iterdir())


def test_a_file_that_a_strangers_record_names_as_its_prompts_is_not_read(stranger: Stranger, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("a line of mine\n")
    stranger.edit(lambda config: config.update(prompts=config["prompts"] | {"path": str(tmp_path / "mine.txt")}))
    code, printed = stranger.command("runner.resume", str(stranger.run), "--accept-endpoint")
    assert "a line of mine" not in printed + str(stranger.server.asked)
    assert code == 0, "it goes on with the prompts of its own copy"


def test_a_strangers_address_is_shown_and_refused_until_it_is_accepted(stranger: Stranger):
    code, printed = stranger.command("runner.resume", str(stranger.run))
    assert code == 2, printed
    assert re.search(rf"is not a run that you began.*provider\.base_url='{stranger.server.url}/v1'", printed)
    assert "--accept-endpoint" in printed
    assert _is_untouched(stranger)
    code, printed = stranger.command("runner.resume", str(stranger.run), "--accept-endpoint")
    assert code == 0, printed
    assert f"base_url='{stranger.server.url}/v1'" in printed, "it is shown before it is sent to"
    assert len(stranger.server.asked) == 1
    assert not stranger.canary.exists()
    assert not (stranger.home / "sweep.json").exists(), "the record's sweep_dir is not obeyed"


@pytest.mark.parametrize("flags", [(), ("--accept-endpoint",)])
@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HF_TOKEN"])
def test_no_other_key_than_the_providers_leaves_whatever_is_accepted(
    variable: str, flags: tuple[str, ...], stranger: Stranger
):
    stranger.edit(lambda config: config["provider"].update(api_key_env=variable))
    code, printed = stranger.command("runner.resume", str(stranger.run), *flags)
    assert code == 2
    assert re.search(rf"provider\.api_key_env='{variable}'.*no key of its provider: it has OPENAI_API_KEY", printed)
    assert _is_untouched(stranger)


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ({"tracking": {"uri": "http://127.0.0.1:9", "traces": "off"}}, "tracking.uri='http://127.0.0.1:9'"),
        ({"tracking": {"uri": "sqlite:///outputs/mlflow.db", "traces": "off"}}, r"tracking.uri='sqlite:////.*stranger"),
        ({"provider": {"_target_": "runner.providers.bedrock.BedrockProvider", "region": "xx-1", "profile": "prod",
                       "endpoint_url": "https://bedrock.example", "api": "converse", "stream": True}},
         r"region='xx-1'.*profile='prod'.*endpoint_url='https://bedrock.example'"),
        ({"provider": {"_target_": "runner.providers.transformers.TransformersProvider", "device": "cpu",
                       "dtype": "auto", "attn_implementation": "stranger/kernels", "compile": False,
                       "chat_template": True, "trust_remote_code": True},
          "model": {"id": "stranger/model", "revision": None, "price": None}},
         r"attn_implementation='stranger/kernels'.*trust_remote_code=True.*model.id='stranger/model'"),
        ({"provider": {"_target_": "runner.providers.openvino.OpenVinoProvider", "device": "CPU", "precision": "f32",
                       "kv_cache_precision": "u8", "cache_gb": 4, "max_batch_tokens": 64, "chat_template": False},
          "model": {"id": "stranger.gguf", "revision": None, "price": None}},
         r"would use .* not have: model.id='stranger.gguf' add"),
        ({"provider": {"_target_": "runner.providers.factory.build"}}, r"_target_='runner.providers.factory.build'"),
    ],
    ids=["store", "store in the tree", "profile and region", "code and kernels", "a file", "a target"],
)  # fmt: skip
def test_everything_that_sends_or_loads_is_listed(change: dict[str, object], listed: str, stranger: Stranger):
    stranger.edit(lambda config: config.update(change))
    code, printed = stranger.command("runner.resume", str(stranger.run))
    assert code == 2
    assert re.search(listed, printed), printed
    assert _is_untouched(stranger)


def test_jobs_that_a_stranger_names_are_asked_about_deleted_and_collected_with_consent_only(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """jobs.json names files of the user's own account; provider and address are those of the configuration."""
    with BatchService() as service:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{service.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        run = tmp_path / "run"
        app.run(config("provider=openai", "batch.mode=job", *prompts_file(tmp_path, 2)), run, waits=QUICK)
        (run / "run.hmac").unlink()
        (job,) = json.loads((run / "jobs.json").read_bytes())
        service.files["file-of-the-user"] = {}
        victim = {"source": "file-of-the-user", "is_cleaned": False}
        (run / "jobs.json").write_text(json.dumps([job | victim]))
        outcomes = run / "outcomes.jsonl"
        outcomes.write_bytes(outcomes.read_bytes().splitlines(keepends=True)[0])
        service.steps.clear()
        done = processes.run(["runner.resume", "run"], cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert f"jobs.json='{job['job_id']}'" in " ".join(done.stderr.split())
        assert not service.steps
        assert "file-of-the-user" in service.files


def test_a_record_that_names_what_is_configured_here_needs_no_consent(config: Compose, tmp_path: Path):
    app.run(config("provider=echo", *prompts_file(tmp_path, 2)), tmp_path / "run")
    (tmp_path / "run" / "run.hmac").unlink()
    done = processes.run(["runner.resume", "run"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not a run that you began here" in done.stderr


def test_commands_given_inside_the_tree_import_nothing_of_it(stranger: Stranger):
    for command in (
        ("runner.resume", "outputs/runs/1"), ("runner.compare", "outputs/runs/1", "--json"),
        ("runner.plan", "provider=echo", "--json"), ("runner.models", "provider=echo"),
    ):  # fmt: skip
        code, printed = stranger.command(*command, cwd=stranger.base, cold=True)
        assert code == (2 if command[0] == "runner.resume" else 0), printed
        assert not stranger.canary.exists(), f"{command}: {stranger.canary.read_text()}"
    assert not stranger.server.asked


def test_a_resumed_run_publishes_from_its_tree_and_runs_nothing_of_it(tracked: Compose, tmp_path: Path):
    base, canary = tmp_path / "mine", tmp_path / "canary"
    base.mkdir()
    forked.run(tracked("provider=echo", *prompts_file(base, 2)), base / "run")
    (base / "run" / "tracking.json").unlink()
    _plant(base, canary)
    done = processes.run(["runner.resume", "run"], cwd=base)
    assert done.returncode == 0, done.stderr
    assert not canary.exists(), canary.read_text()
    assert RunFolder(base / "run").read_mlflow_run() is not None, "the worker has published"


@pytest.mark.parametrize("name", ["runner.log", "outcomes.jsonl", "summary.json", ".outcomes.jsonl.new", "run.lock"])
def test_links_in_the_folder_are_not_written_through(name: str, stranger: Stranger):
    kept = stranger.base / "kept"
    kept.write_text("the user's own, without an end of line")
    (stranger.run / name).unlink(missing_ok=True)
    (stranger.run / name).symlink_to(kept)
    stranger.command("runner.resume", str(stranger.run), "--accept-endpoint")
    stranger.command("runner.compare", str(stranger.run), "--output", str(stranger.run))
    assert kept.read_text() == "the user's own, without an end of line"


@pytest.mark.parametrize("name", ["comparison.html", "comparison.json", ".comparison.html.new", "plots"])
def test_a_comparison_is_not_written_through_links(name: str, stranger: Stranger):
    pictures, kept = stranger.base / "pictures", stranger.base / "kept"
    pictures.mkdir()
    kept.write_text("as it was")
    sweep = stranger.base / "sweep"
    for number in ("0", "1"):
        shutil.copytree(stranger.run, sweep / number)
    (sweep / name).symlink_to(pictures if name == "plots" else kept)
    code, printed = stranger.command("runner.compare", str(sweep))
    assert code == (2 if name == "plots" else 0), printed
    assert kept.read_text() == "as it was"
    assert not list(pictures.iterdir())


def test_a_strangers_sweep_is_compared_and_reaches_no_store(stranger: Stranger):
    sweep = stranger.base / "sweep"
    for number in ("0", "1"):
        shutil.copytree(stranger.run, sweep / number)
    parent = {"uri": stranger.server.url, "experiment": "x", "run_id": "0" * 32}
    (sweep / "sweep.json").write_text(json.dumps(parent))
    code, printed = stranger.command("runner.compare", str(sweep))
    assert code == 0, printed
    assert f"--publish writes the comparison to '{stranger.server.url}'" in printed
    assert not stranger.server.asked
    assert not stranger.canary.exists()


def test_a_comparison_asks_no_hub_for_a_tokenizer(stranger: Stranger):
    """In a new process that is online, as the tests' own is not: it has torch to import, which takes seconds."""
    provider = {
        "_target_": "runner.providers.transformers.TransformersProvider", "device": "cpu", "dtype": "auto",
        "attn_implementation": None, "compile": False, "chat_template": True, "trust_remote_code": False,
    }  # fmt: skip
    model = {"id": "stranger/model", "revision": None, "price": None}
    stranger.edit(lambda config: config.update(provider=provider, model=model))
    other = stranger.base / "other"
    shutil.copytree(stranger.run, other)
    config = json.loads((other / "config.yaml").read_bytes())
    (other / "config.yaml").write_text(json.dumps(config | {"batch": config["batch"] | {"size": 1}}))
    outcome = json.loads((other / "outcomes.jsonl").read_bytes())
    (other / "outcomes.jsonl").write_text(json.dumps(outcome | {"text": "another text"}) + "\n")
    code, printed = stranger.command("runner.compare", str(stranger.run), str(other), "--json", cold=True, online=True)
    assert code == 0, printed
    assert "first_differing_word" in printed, "there is no tokenizer of that name on this machine"
    assert not stranger.server.asked


def test_names_from_a_record_command_no_terminal_and_forge_no_line(stranger: Stranger):
    name = "\x1b]8;;http://evil\x1b\\\x1b[2J\n2026-01-01 00:00:00,000 INFO runner: all is well"
    stranger.edit(lambda config: config.update(name=name, model={"id": name, "revision": None, "price": None}))
    sweep = stranger.base / "sweep\x1b[31m\nforged"
    for number in ("0", "1"):
        shutil.copytree(stranger.run, sweep / number)
    _, resumed = stranger.command("runner.resume", str(stranger.run), "--accept-endpoint")
    _, compared = stranger.command("runner.compare", str(sweep))
    assert "\x1b" not in resumed + compared
    log = (stranger.run / "runner.log").read_text()
    assert "\x1b" not in log
    assert not re.search(r"^2026-01-01 00:00:00,000 INFO", log, re.MULTILINE)
