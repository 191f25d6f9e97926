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
_ROOM = CONF_DIR.parent / "runner" / "providers"
_SHARED = {
    *(
        "__init__",
        "__pycache__",
        "answer_tokens",
        "embedded",
        "errors",
        "factory",
        "in_process",
        "protocols",
        "responses",
    )
}
"""What is no provider among the modules of providers."""
PROVIDER_ROOMS = {path.stem for path in _ROOM.iterdir()} - _SHARED


def options() -> list[str]:
    names = []
    for path in sorted(CONF_DIR.rglob("*.yaml")):
        group, option = path.parent.relative_to(CONF_DIR).as_posix(), path.stem
        if group.endswith("/shared"):  # what options build on
            continue
        if group.startswith("model/"):
            names.append(f"provider={group.removeprefix('model/')} model={group.removeprefix('model/')}/{option}")
        elif group == "experiment":
            names.append(f"+experiment={option}")
        elif group != "." and not group.startswith("hydra"):
            names.append(f"{group}={option}")
    return names


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


def test_every_provider_has_a_yaml_and_every_yaml_a_provider(config: Compose):
    targets = {config(f"provider={name}").provider.name for name in PROVIDERS}
    assert targets == PROVIDER_ROOMS


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


def run_and_list_imports(folder: Path, *arguments: str) -> "tuple[subprocess.CompletedProcess[str], set[str]]":
    """Run `python -m runner` and return what the process printed, and the packages that it imported."""
    watch = (
        f"import sys, runpy\nsys.argv = {['runner', *arguments]!r}\n"
        "try: runpy.run_module('runner', run_name='__main__')\n"
        "finally: print('imported', *{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", watch], cwd=folder, capture_output=True, text=True, check=False)
    return done, set(done.stderr.splitlines()[-1].split()[1:])


HEAVY = {
    *("torch", "transformers", "mlflow", "openai", "boto3", "datasets", "genai_prices", "pyarrow"),
    *("matplotlib", "jinja2", "rapidfuzz"),
}


def test_help_shows_the_groups_without_heavy_packages(tmp_path: Path):
    done, imported = run_and_list_imports(tmp_path, "--help")
    assert done.returncode == 0
    assert "provider: azure, bedrock, echo, llama-server, ollama, openai" in done.stdout
    assert "model/transformers: default, gpt2" in done.stdout
    assert not imported & HEAVY
    assert done.stderr.startswith("imported"), "help prints no error"
    assert not list(tmp_path.iterdir()), "help writes nothing"


def test_a_wrong_key_is_refused_before_heavy_packages_are_imported(tmp_path: Path):
    done, imported = run_and_list_imports(tmp_path, "batch.sise=4")
    assert done.returncode == 2
    assert not imported & HEAVY


def test_a_run_of_echo_imports_nothing_that_another_provider_or_a_comparison_needs(tmp_path: Path):
    done, imported = run_and_list_imports(tmp_path, "provider=echo", "prompts=memo", "tracking=off")
    assert done.returncode == 0
    assert not imported & HEAVY
