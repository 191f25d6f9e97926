"""Every YAML composes, validates, and binds to the constructor that it names."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from runner.batching.modes import modes_of
from runner.config.schema import CONF_DIR
from runner.prompts import load_prompts
from runner.providers.factory import build, provider_class
from tests.conftest import Compose

NEEDED = {"prompts=file": ["prompts.path=some.jsonl"], "prompts=hub": ["prompts.dataset=some/dataset"]}
PROVIDERS = sorted(path.stem for path in (CONF_DIR / "provider").glob("*.yaml"))
PROVIDER_FILES = sorted(
    path.stem for path in (CONF_DIR.parent / "runner" / "providers").glob("[!_]*.py") if path.stem != "base"
)


def options() -> list[str]:
    found = []
    for path in sorted(CONF_DIR.rglob("*.yaml")):
        group, option = path.parent.relative_to(CONF_DIR).as_posix(), path.stem
        if group.startswith("model/"):
            found.append(f"provider={group.removeprefix('model/')} model={group.removeprefix('model/')}/{option}")
        elif group == "experiment":
            found.append(f"+experiment={option}")
        elif group != "." and not group.startswith("hydra"):
            found.append(f"{group}={option}")
    return found


@pytest.mark.parametrize("option", options())
def test_every_option_composes_validates_and_builds(option: str, config: Compose, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    composed = config(*option.split(), *NEEDED.get(option, []))
    build(composed)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_providers_yaml_states_exactly_its_constructors_arguments(name: str, config: Compose):
    composed = config(f"provider={name}")
    parameters = inspect.signature(provider_class(composed)).parameters.values()
    assert {parameter.name for parameter in parameters} == {"model", *composed.provider.settings}
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters), "YAML owns the values"


def test_every_provider_file_has_a_yaml_and_every_yaml_a_provider(config: Compose):
    targets = {config(f"provider={name}").provider.name for name in PROVIDERS}
    assert set(PROVIDER_FILES) == targets


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_providers_default_mode_is_one_that_it_has(name: str, config: Compose):
    kind = provider_class(config(f"provider={name}"))
    assert kind.default_mode in modes_of(kind)


def test_the_demo_prompts_are_many_and_varied(config: Compose):
    prompts = load_prompts(config("prompts=demo").prompts).prompts
    lengths = sorted(len(prompt.text) for prompt in prompts)
    assert len(prompts) >= 64
    assert lengths[-1] > 10 * lengths[0]


def test_the_memos_two_prompts_are_a_set(config: Compose):
    texts = [prompt.text for prompt in load_prompts(config("prompts=memo").prompts).prompts]
    assert texts == ["Hello, my name is", "What is the capital of"]


def test_no_yaml_holds_a_secret():
    for path in CONF_DIR.rglob("*.yaml"):
        text = path.read_text()
        assert yaml.safe_load(text.replace("???", "null")) is not None
        assert "oc.env" not in text.replace("${oc.env:MLFLOW_TRACKING_URI}", ""), (
            "a config holds a variable's name only"
        )


def test_help_shows_the_groups_without_torch_or_mlflow(tmp_path: Path):
    watch = (
        "import sys, runpy\nsys.argv = ['runner', '--help']\n"
        "try: runpy.run_module('runner', run_name='__main__')\n"
        "finally: print([name for name in ('torch', 'mlflow', 'transformers') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", watch], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "provider: azure, bedrock, echo, llama-server, ollama, openai" in done.stdout
    assert "model/transformers: default, gpt2" in done.stdout
    assert done.stderr.strip() == "[]"
    assert not list(tmp_path.iterdir()), "help writes nothing"
