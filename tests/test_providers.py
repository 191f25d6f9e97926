"""Every provider is what the protocols say: mypy reads this module (pyproject.toml), and it is run as well."""

from runner.config import CONF_DIR
from runner.providers.azure import AzureProvider
from runner.providers.base import (
    ConcurrentProvider,
    ContinuousProvider,
    JobProvider,
    ListProvider,
    ModelLister,
    Provider,
    StaticProvider,
    TokenCounter,
    Tokenizer,
)
from runner.providers.bedrock import BedrockProvider
from runner.providers.echo import EchoProvider
from runner.providers.openai import OpenAIProvider
from runner.providers.transformers import TransformersProvider

PROVIDERS: tuple[type[Provider], ...] = (
    AzureProvider, BedrockProvider, EchoProvider, OpenAIProvider, TransformersProvider,
)  # fmt: skip
LISTERS: tuple[type[ModelLister], ...] = (
    AzureProvider, BedrockProvider, EchoProvider, OpenAIProvider, TransformersProvider,
)  # fmt: skip
STATIC: tuple[type[StaticProvider], ...] = (EchoProvider, TransformersProvider)
CONTINUOUS: tuple[type[ContinuousProvider], ...] = (EchoProvider,)
CONCURRENT: tuple[type[ConcurrentProvider], ...] = (AzureProvider, BedrockProvider, EchoProvider, OpenAIProvider)
LISTS: tuple[type[ListProvider], ...] = (AzureProvider, OpenAIProvider)
JOBS: tuple[type[JobProvider], ...] = (EchoProvider,)
COUNTERS: tuple[type[TokenCounter], ...] = (EchoProvider, TransformersProvider)
TOKENIZERS: tuple[type[Tokenizer], ...] = (EchoProvider, TransformersProvider)


def test_no_provider_was_forgotten() -> None:
    files = (CONF_DIR.parent / "runner" / "providers").glob("[!_]*.py")
    assert {kind.name for kind in PROVIDERS} == {file.stem for file in files} - {"base"}
