"""What tests of provider=bedrock share: model ids, prompts, and one call."""

import asyncio
from collections.abc import Callable

import pytest

from runner.batching.base import PendingPrompts
from runner.config.schema import RunConfig
from runner.providers.errors import CallError
from runner.providers.factory import build
from runner.types import Completion, Message, Prompt

FAMILIES = {
    "anthropic": "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "nova": "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0",
    "llama3": "apac.meta.llama3-1-8b-instruct-v1:0",
    "llama4": "global.meta.llama4-scout-17b-instruct-v1:0",
    "mistral": "mistral.mistral-large-2402-v1:0",
    "titan": "amazon.titan-text-express-v1",
}
SECRET = "not-a-real-secret-key"  # noqa: S105 - looked for in headers and messages

ComposeBedrock = Callable[..., RunConfig]


def prompt(text: str, *, id: str = "p", system: str | None = None) -> Prompt:
    before = (Message(role="system", content=system),) if system else ()
    return Prompt(id=id, messages=(*before, Message(role="user", content=text)))


def complete(config: RunConfig, prompt: Prompt) -> Completion:
    """Send one prompt without retries, and return its completion."""
    with build(config) as provider:
        generated = asyncio.run(provider.generate(prompt, config.params()))  # type: ignore[attr-defined]
    (outcome,) = PendingPrompts(prompts=[prompt]).finish_call([(prompt, generated)], batch=0)
    assert isinstance(outcome, Completion)
    return outcome


def call_error(config: RunConfig) -> CallError:
    """Send a prompt without retries, and return the error of its call."""
    with pytest.raises(CallError) as caught:
        complete(config, prompt("one two three"))
    return caught.value
