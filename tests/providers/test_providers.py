"""Every provider is what the protocols say: mypy reads this module (pyproject.toml), and it is run as well."""

from runner.config.schema import CONF_DIR
from runner.providers.azure.provider import AzureProvider
from runner.providers.bedrock.provider import BedrockProvider
from runner.providers.echo import EchoProvider
from runner.providers.openai.provider import OpenAIProvider
from runner.providers.openvino.provider import OpenVinoProvider
from runner.providers.protocols import (
    ConcurrentProvider,
    ContinuousProvider,
    ListProvider,
    ModelLister,
    Provider,
    StaticProvider,
    TokenCounter,
    Tokenizer,
)
from runner.providers.transformers.provider import TransformersProvider

SERVERS = {"llama-server", "ollama", "transformers-serve", "vllm"}
"""YAML files of servers that provider=openai talks to."""
PROVIDERS: tuple[type[Provider], ...] = (
    AzureProvider, BedrockProvider, EchoProvider, OpenAIProvider, OpenVinoProvider, TransformersProvider,
)  # fmt: skip
LISTERS: tuple[type[ModelLister], ...] = (
    AzureProvider, BedrockProvider, EchoProvider, OpenAIProvider, OpenVinoProvider, TransformersProvider,
)  # fmt: skip
STATIC: tuple[type[StaticProvider], ...] = (EchoProvider, TransformersProvider)
CONTINUOUS: tuple[type[ContinuousProvider], ...] = (EchoProvider, OpenVinoProvider)
CONCURRENT: tuple[type[ConcurrentProvider], ...] = (AzureProvider, BedrockProvider, EchoProvider, OpenAIProvider)
LISTS: tuple[type[ListProvider], ...] = (AzureProvider, OpenAIProvider)
COUNTERS: tuple[type[TokenCounter], ...] = (EchoProvider, OpenVinoProvider, TransformersProvider)
TOKENIZERS: tuple[type[Tokenizer], ...] = (EchoProvider, TransformersProvider)


def test_no_provider_was_forgotten() -> None:
    assert {kind.name for kind in PROVIDERS} == {path.stem for path in (CONF_DIR / "provider").glob("*.yaml")} - SERVERS
