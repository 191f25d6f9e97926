"""Servers that answer as no service should, chosen by seeds: every prompt has one outcome, or the run ends in order.

RUNNER_FUZZED says how many (`make test-faults`: 200).
"""

import os
import random
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from runner.config.schema import RunConfig
from runner.config.waits import Waits
from runner.errors import RunnerError
from runner.run.prepare import prepare_calls
from runner.types import Completion
from tests.conftest import Compose
from tests.factories import generate_until_stopped, numbered
from tests.providers.bedrock import FAMILIES, ComposeBedrock
from tests.servers.bedrock_server import (
    BedrockServer,
    Reply,
    Wire,
    converse_body,
    converse_frames,
    invoke_frames,
)
from tests.servers.odd_answers import odd_wire
from tests.servers.openai_server import KEY, Asked, OpenAIServer, stream_events, whole_answer

FUZZED = int(os.environ.get("RUNNER_FUZZED", "16"))
PROMPTS = 12
MAX_MB = 400
"""Of this process, runs and servers included, over all seeds."""
MAX_GROWTH_MB = 200
"""Over all seeds, where the tests of other files have made this process larger than that: `make test`."""


@dataclass
class Fuzzed:
    """Decides for each request whether its answer is odd.

    Attributes:
        answered: ids of the prompts that got a well-formed answer.
    """

    name: str
    seed: int
    answered: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chooser = random.Random(self.seed)
        self.share = self.chooser.choice((0.2, 0.5, 0.9))

    def wire(self, numbers: list[str], good: Callable[[], Any]) -> bytes | None:
        """Return an odd answer to these prompts, whose texts are their numbers; None is a well-formed one."""
        if self.chooser.random() < self.share:
            return odd_wire(self.chooser, good())
        self.answered |= {f"p{number}" for number in numbers}
        return None

    def openai(self, path: str) -> Callable[[int, dict[str, Any]], dict[str, Any] | None]:
        def fault(_: int, body: dict[str, Any]) -> dict[str, Any] | None:
            content = (
                body.get("prompt") or (body.get("messages") or body.get("input") or [{"content": "0"}])[-1]["content"]
            )
            asked = Asked(path=path, headers={}, body=body, arrived=0.0)
            wire = self.wire(
                [content] if isinstance(content, str) else content,
                lambda: [event for event, _ in stream_events(asked)] if body.get("stream") else whole_answer(asked),
            )
            return None if wire is None else {"wire": wire}

        return fault

    def bedrock(self, raw: str) -> Wire | None:
        number = next(text for text in map(str, reversed(range(PROMPTS))) if f'"{text}"' in raw or f"] {text} [" in raw)
        reply = Reply(words=[number], input_tokens=1, limit=8, stop_reason=None, counted=True)
        good = {
            "bedrock-converse": lambda: b"".join(converse_frames(reply)),
            "bedrock-invoke": lambda: b"".join(invoke_frames("nova", reply)),
            "bedrock-whole": lambda: converse_body(reply),
        }
        wire = self.wire([number], good[self.name])
        return None if wire is None else Wire(wire)


HOSTED = {
    "openai-stream": ("provider=openai", "provider.endpoint=chat"),
    "openai-whole": ("provider=openai", "provider.endpoint=chat", "provider.stream=false"),
    "openai-responses": ("provider=openai", "provider.endpoint=responses"),
    "openai-lists": ("provider=openai", "provider.endpoint=completions", "batch.mode=static"),
    "azure": ("provider=azure", "provider.endpoint=chat"),
    "bedrock-converse": ("api=converse", "stream=true"),
    "bedrock-invoke": ("api=invoke", "stream=true"),
    "bedrock-whole": ("api=converse", "stream=false"),
}
SETTINGS = ("generation.max_tokens=8", "batch.size=4", "limits.timeout_s=20")


@contextmanager
def openai(fuzzed: Fuzzed, overrides: tuple[str, ...], config: Compose) -> Iterator[RunConfig]:
    path = "/v1/responses" if "provider.endpoint=responses" in overrides else "/v1/chat/completions"
    with OpenAIServer(fault=fuzzed.openai(path)) as server:
        is_azure = "provider=azure" in overrides
        address = f"azure_endpoint={server.url}" if is_azure else f"base_url={server.url}/v1"
        composed = config(*overrides, f"provider.{address}", *SETTINGS)
        yield composed.with_mode(composed.batch.mode or "concurrent")


@pytest.fixture(scope="module")
def max_peak_mb() -> float:
    """The most that this process may have taken at its peak: 400 MB, unless other tests have brought it near that."""
    return max(MAX_MB, _peak_mb() + MAX_GROWTH_MB)


@pytest.mark.parametrize("seed", range(FUZZED))
def test_every_prompt_has_one_outcome_or_the_run_ends_in_order(
    seed: int, config: Compose, bedrock: ComposeBedrock, server: BedrockServer, aws_credentials: None,
    max_peak_mb: float, monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    for variable in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(variable, KEY)
    name = sorted(HOSTED)[seed % len(HOSTED)]
    fuzzed, attempts = Fuzzed(name, seed), f"limits.max_attempts={2 if seed % 5 == 0 else 1}"
    if name.startswith("bedrock"):
        server.fault = fuzzed.bedrock
        settings = dict(setting.split("=") for setting in HOSTED[name])
        model = (f"model.id={FAMILIES['nova']}",) if settings["api"] == "invoke" else ()
        check(fuzzed, bedrock(*model, *SETTINGS, attempts, **settings))
    else:
        with openai(fuzzed, (*HOSTED[name], attempts), config) as composed:
            check(fuzzed, composed)
    assert _peak_mb() < max_peak_mb


def check(fuzzed: Fuzzed, config: RunConfig) -> None:
    """Run, and check what became of each prompt."""
    calls = prepare_calls(config, Waits(throttled_s=0.3))
    asked = numbered(PROMPTS)
    outcomes = generate_until_stopped(calls, config, asked)
    counts = Counter(outcome.prompt_id for outcome in outcomes)
    assert max(counts.values(), default=0) <= 1, counts
    if calls.stop.reason is None:
        assert counts.keys() == {prompt.id for prompt in asked}
    else:
        assert isinstance(calls.stop.reason, RunnerError)
    completed = {outcome.prompt_id for outcome in outcomes if isinstance(outcome, Completion)}
    assert fuzzed.answered <= completed, "a well-formed answer was lost"
    for outcome in outcomes:
        if isinstance(outcome, Completion) and outcome.usage is not None:
            assert min(outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.usage.cached_input_tokens) >= 0


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
