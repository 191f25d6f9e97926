"""A renamed key works in recorded runs for ever, and is refused in a new run with its new name."""

import json
from pathlib import Path

import pytest
import yaml

from runner import app
from runner.cli.compose import compose_config
from runner.comparison.load import load
from runner.config.parse import parse
from runner.config.renamed import RENAMED, with_current_keys
from runner.config.schema import RunConfig
from runner.errors import ConfigError
from runner.providers.factory import build
from runner.record.folder import CONFIG, MANIFEST, OUTCOMES, SUMMARY, RunFolder
from tests.conftest import Compose, Runner
from tests.servers.openai_server import KEY, OpenAIServer

NEW_NAME = r"provider\.lacks=\['n'\]: this key is now provider\.unsupported_params"


def with_old_keys(folder: Path) -> None:
    """Rewrite a run's record as a version before the renaming left it."""
    config = yaml.safe_load((folder / CONFIG).read_text())
    config["provider"]["lacks"] = config["provider"].pop("unsupported_params")
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["config"]["provider"]["lacks"] = manifest["config"]["provider"].pop("unsupported_params")
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_recorded_run_with_an_old_key_is_resumed(config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAIServer() as server:
        address = f"provider.base_url={server.url}/v1"
        app.run(config("provider=openai", address, "provider.unsupported_params=[n]", "prompts=memo"), tmp_path)
        with_old_keys(tmp_path)
        lines = (tmp_path / OUTCOMES).read_text().splitlines(keepends=True)
        (tmp_path / OUTCOMES).write_text(lines[0])
        (tmp_path / SUMMARY).unlink()
        result = app.resume(tmp_path)
    assert result.metrics["completed_prompts"] == 2
    assert "lacks" in (tmp_path / CONFIG).read_text(), "the record stays as it was written"


def test_a_recorded_run_with_an_old_key_is_compared_as_if_it_had_the_new_one(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    folders = [tmp_path / name for name in ("old", "new")]
    with OpenAIServer() as server:
        for folder in folders:
            app.run(config("provider=openai", f"provider.base_url={server.url}/v1", "prompts=memo"), folder)
    with_old_keys(folders[0])
    old, new = load(folders)
    assert old.settings == new.settings
    build(parse(RunFolder(folders[0]).read_config()))


def test_an_old_key_of_a_refused_run_is_read_from_what_hydra_composed(tmp_path: Path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("provider: {lacks: [n]}\nseed: 0\n")
    (run,) = load([tmp_path])
    assert run.settings == {"provider.unsupported_params": ["n"], "seed": 0}


def test_an_old_key_of_a_new_run_is_refused_with_the_new_one(config: Compose):
    with pytest.raises(ConfigError, match=NEW_NAME):
        config("provider=openai", "+provider.lacks=[n]")
    with pytest.raises(ConfigError, match=NEW_NAME):
        compose_config(["provider=openai", "+provider.lacks=[n]"])


def test_an_old_key_in_a_yaml_is_refused_with_the_new_one(tmp_path: Path):
    for name, text in {
        "provider/mine.yaml": "defaults: [openai, _self_]\nlacks: [n]\n",
        "model/mine/default.yaml": "{id: m, revision: null, price: null}\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=NEW_NAME):
        compose_config(["provider=mine"], config_dir=str(tmp_path))


@pytest.mark.parametrize("override", ["provider.lacks=[n]", "+provider.lacks=[n]"])
def test_an_old_key_on_the_command_line_is_one_message_with_the_new_one(override: str, run_command: Runner):
    done = run_command("provider=openai", override)
    assert done.returncode == 2
    assert "this key is now provider.unsupported_params" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_renamed_key_stays_in_its_section_and_its_old_name_is_no_key(config: Compose):
    for old, new in RENAMED.items():
        assert old.rpartition(".")[0] == new.rpartition(".")[0]
        assert new not in RENAMED, "a chain of names: give the present one"
    assert not RENAMED.keys() & config("provider=openai").flat().keys()


@pytest.mark.parametrize("name", ["bedrock"])
def test_a_record_without_the_settings_of_a_providers_jobs_gets_those_of_its_yaml(name: str, config: Compose):
    current = config(f"provider={name}").model_dump(mode="json", by_alias=True)
    recorded = current | {"provider": {key: value for key, value in current["provider"].items() if key != "job"}}
    assert with_current_keys(recorded) == current
    build(parse(with_current_keys(recorded)))


def test_a_configuration_without_old_keys_is_left_as_it_is(config: Compose):
    recorded = config("provider=openai", "model.price={input_usd_per_million: 1, output_usd_per_million: 2}")
    values = recorded.model_dump(mode="json", by_alias=True)
    assert with_current_keys(values) == values
    assert RunConfig.model_validate(with_current_keys(values)) == recorded


@pytest.mark.parametrize("provider", ["openai", "azure", "bedrock"])
def test_a_record_of_a_version_without_batch_jobs_has_the_settings_of_now(provider: str, config: Compose):
    now = config(f"provider={provider}")
    values = now.model_dump(mode="json", by_alias=True)
    del values["provider"]["job"]
    assert RunConfig.model_validate(with_current_keys(values)) == now
