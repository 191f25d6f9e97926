"""Bodies of requests as pure values: what is set and nothing else, and the same JSON that is sent."""

import json
from dataclasses import replace

import pytest

from runner.config.schema import GenerationParams
from runner.providers.azure.provider import AzureProvider
from runner.providers.openai.endpoints import ENDPOINTS, EndpointName, RequestSettings
from runner.providers.openai.provider import OpenAIProvider
from tests.conftest import Compose
from tests.factories import generate, prompts
from tests.servers.openai_server import OpenAIServer

NAMES: tuple[EndpointName, ...] = tuple(ENDPOINTS)
SETTINGS = RequestSettings(
    model="m", max_tokens_field=None, service_tier=None, reasoning_effort=None, prediction=None, seed=True
)
GREEDY = GenerationParams(max_tokens=3, temperature=0, top_p=None, top_k=None, stop_sequences=(), n=1, seed=7)
(PROMPT,) = prompts("hi")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_body_is_what_is_sent_but_for_the_stream(name: EndpointName, stream: bool, hosted: Compose):
    with OpenAIServer() as server:
        config = hosted(server, f"provider.endpoint={name}", f"provider.stream={stream}", "generation=sampled")
        generate(config, [PROMPT])
    (request,) = server.asked
    endpoint = ENDPOINTS[name]
    body = endpoint.body(endpoint.content(PROMPT), config.params(), replace(SETTINGS, model=config.model.id))
    assert json.loads(json.dumps(body)) | (endpoint.stream_fields if stream else {}) == request.body


@pytest.mark.parametrize("name", NAMES)
def test_a_body_has_no_field_that_is_not_set(name: EndpointName):
    endpoint = ENDPOINTS[name]
    body = endpoint.body(endpoint.content(PROMPT), GREEDY, replace(SETTINGS, seed=False))
    prompt = "hi" if endpoint.takes_lists else [{"role": "user", "content": "hi"}]
    expected = {"model": "m", endpoint.content_key: prompt, endpoint.limit_keys[0]: 3, "temperature": 0.0}
    assert body == {**expected, **endpoint.constants}


@pytest.mark.parametrize("name", NAMES)
def test_a_temperature_of_one_is_sent(name: EndpointName):
    endpoint = ENDPOINTS[name]
    body = endpoint.body(endpoint.content(PROMPT), GREEDY.model_copy(update={"temperature": 1.0}), SETTINGS)
    assert body["temperature"] == 1.0


def test_a_body_may_hold_a_list_of_prompts():
    endpoint = ENDPOINTS["completions"]
    body = endpoint.body([endpoint.content(prompt) for prompt in prompts("a", "b")], GREEDY, SETTINGS)
    assert (body["prompt"], body["seed"], "n" in body) == (["a", "b"], 7, False)


@pytest.mark.parametrize("name", NAMES)
def test_bodies_share_nothing_that_a_sender_may_change(name: EndpointName):
    endpoint = ENDPOINTS[name]
    settings = replace(SETTINGS, reasoning_effort="low" if endpoint.settings else None)
    first, second = (endpoint.body(endpoint.content(PROMPT), GREEDY, settings) for _ in range(2))
    assert first == second
    first |= {"stream": True}
    assert second == endpoint.body(endpoint.content(PROMPT), GREEDY, settings)


def test_azure_and_openai_are_two_clients_of_one_implementation():
    assert OpenAIProvider not in AzureProvider.__mro__
    assert AzureProvider.generate is OpenAIProvider.generate
