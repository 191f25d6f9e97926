"""Shared parts: configurations composed as Hydra composes them, a tiny model made on the spot, and no network."""

import atexit
import copy
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="runner-state-")  # the key of ownership is the tests' own
if "PYTEST_XDIST_WORKER" in os.environ:  # two models with two threads each on two cores wait for each other's threads
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hypothesis import settings
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.cli.compose import from_hydra
from runner.config.schema import CONF_DIR, RunConfig
from tests import processes
from tests.servers.openai_server import KEY, OpenAIServer

atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

ROOT = Path(__file__).parent
SLOW = (
    "end_to_end", "tracking", "run/test_resume.py", "run/test_signals.py", "run/test_way_of_a_prompt.py", "test_app.py",
    "test_processes.py", "cli/test_main.py", "cli/test_sweep_processes.py", "dispatch/test_limits_on_a_server.py",
    "providers/test_real_model.py", "providers/test_local_servers.py", "providers/test_transformers.py",
    "providers/openai/test_openai_commands.py",
)  # fmt: skip
"""Folders and files whose tests all are `slow`. In others a test says so itself."""
LONGEST = (
    "providers/test_real_model.py", "cli/test_main.py", "end_to_end/test_browser.py", "providers", "tracking", "end_to_end",
    "cli", "comparison", "run",
)  # fmt: skip
"""In this order they start first: what is long must not begin last, when one of two workers has nothing else to do."""
_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")  # noqa: S104 - compared, not bound

Compose = Callable[..., RunConfig]


class Runner(Protocol):
    """Runs `python -m runner` with these arguments.

    Args:
        track: publish to the session's store; else tracking=off.
        cold: start a new interpreter; else the process is forked from one that has the imports.
        local_model: the fork server has imported torch and transformers, for runs that load a model.
        environment: variables besides this process's.
    """

    def __call__(
        self, *arguments: str, track: bool = False, cold: bool = False, local_model: bool = False, **environment: str
    ) -> CompletedProcess[str]: ...


def _refuse_the_network(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple) and not str(arguments[1][0]).startswith(_LOOPBACK):
        raise RuntimeError(f"a test reached for the network: {arguments[1]}")


settings.register_profile("steady", deadline=None)  # a shared machine's seconds prove nothing
settings.load_profile("steady")
sys.addaudithook(_refuse_the_network)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what is slow."""
    if item.path.relative_to(ROOT).as_posix().startswith(SLOW):
        item.add_marker("slow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what is long first."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    path = item.path.relative_to(ROOT).as_posix()
    if item.get_closest_marker("real_model"):
        return 0
    return next((place for place, start in enumerate(LONGEST) if path.startswith(start)), len(LONGEST))


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for the session: creating one costs seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an MLflow store without runs, for tests that need a copy of their own: creating one costs seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def _composed(*overrides: str) -> RunConfig:
    """Compose as Hydra does, but compose the chosen groups once for each choice, because that costs 0.1 s."""
    parsed = OverridesParser.create().parse_overrides([*overrides])
    values = [override for override in parsed if _is_value(override)]
    cfg = copy.deepcopy(_chosen(*(str(override.input_line) for override in parsed if override not in values)))
    try:
        for override in values:
            OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException:
        cfg = _chosen(*overrides)  # raises Hydra's own error
    return from_hydra(cfg)


@cache
def _chosen(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("config", [*overrides])


def _is_value(override: Override) -> bool:
    """Whether an override changes one key, and chooses no group's option."""
    is_group = (CONF_DIR / override.key_or_group).is_dir() and not isinstance(override.value(), dict)
    return override.type is OverrideType.CHANGE and not (is_group or override.is_hydra_override() or override.package)


@pytest.fixture(scope="session")
def config() -> Compose:
    """Compose and check a configuration from overrides; nothing is published to MLflow."""
    return partial(_composed, "tracking=off")


@pytest.fixture
def tracked(store: str) -> Compose:
    """Compose and check a configuration from overrides, tracked in the session's store."""
    return partial(_composed, f"tracking.uri={store}", "tracking.traces=off")


@pytest.fixture
def hosted(config: Compose, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """Compose a configuration from an OpenAIServer and overrides, its mode stated; the environment has a key."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def composed(server: OpenAIServer, *overrides: str) -> RunConfig:
        run_config = config("provider=openai", f"provider.base_url={server.url}/v1", "batch.size=4", *overrides)
        return run_config.with_mode(run_config.batch.mode or "concurrent")

    return composed


@pytest.fixture
def run_command(tmp_path: Path, store: str) -> Runner:
    """Run `python -m runner ...` in an empty folder, as a user would, without a terminal."""

    def run(
        *arguments: str, track: bool = False, cold: bool = False, local_model: bool = False, **environment: str
    ) -> CompletedProcess[str]:
        return processes.run(
            ["runner", *arguments, f"tracking.uri={store}" if track else "tracking=off"],
            cwd=tmp_path,
            env=os.environ | environment,
            cold=cold,
            imports=processes.LOCAL_MODELS if local_model else processes.COMMANDS,
        )

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights (60 kB), saved as a model folder. Its tokens are letters; it has no chat template, no pad token."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {chr(code): place for place, code in enumerate(range(32, 127))}
    vocabulary["<end>"] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=vocabulary["<end>"], bos_token_id=None,
        pad_token_id=None, initializer_range=0.4,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    return folder
