"""Answers with the prompt's text: free, offline, and fast enough to measure the runner instead of a model.

Tokens are words: an answer is the prompt's first `max_tokens` words. Supports static, continuous and concurrent.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, validate_call

from runner.config.schema import STRICT, BatchMode, GenerationParams, ModelConfig
from runner.providers.protocols import ModelInfo
from runner.types import Answer, ErrorInfo, Generated, Prompt, Stopwatch, Timing, Usage

_MAX_LATENCY_S = 3600.0


class EchoProvider:
    """The provider for tests, documentation and overhead measurements.

    Args:
        model: its id is recorded in the outcomes.
        latency_s: seconds that every call takes.
        fail_on: a prompt that contains this text fails; null for none.
    """

    name: ClassVar[str] = "echo"
    default_mode: ClassVar[BatchMode] = "concurrent"
    is_local: ClassVar[bool] = True
    price_catalog: ClassVar[str | None] = None
    supported_params = frozenset({"stop_sequences", "n"})

    @validate_call(config=STRICT)
    def __init__(
        self, *, model: ModelConfig, latency_s: Annotated[float, Field(ge=0, le=_MAX_LATENCY_S)], fail_on: str | None
    ) -> None:
        self._model = model
        self._latency_s = latency_s
        self._fail_on = fail_on

    def validate(self, params: GenerationParams) -> None:
        """Accept every value of the supported keys."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release nothing."""

    def describe(self) -> Mapping[str, Any]:
        """Return the provider's name; nothing else affects an answer."""
        return {"gen_ai.provider.name": "echo", "gen_ai.operation.name": "chat", "sends_seed": False}

    def list_models(self) -> Sequence[ModelInfo]:
        """Return one model, which has the configured id."""
        return [ModelInfo(id=self._model.id, kind="built in", detail="answers from the prompt")]

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the number of words."""
        return len(prompt.text.split())

    def tokenize(self, texts: Sequence[str]) -> Sequence[Sequence[str]]:
        """Return the words of each text."""
        return [text.split() for text in texts]

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        """Answer all prompts after one latency."""
        watch = Stopwatch()
        time.sleep(self._latency_s)
        watch.first_token()
        timing = watch.stop()
        return [self._generate(prompt, params, timing) for prompt in prompts]

    def generate_continuously(
        self, prompts: Iterable[Prompt], params: GenerationParams, size: int
    ) -> Iterator[tuple[Prompt, Generated]]:
        """Keep `size` prompts alive, each for one latency, and yield the oldest as it finishes."""
        alive: deque[tuple[Prompt, Stopwatch, float]] = deque()
        waiting = iter(prompts)
        while True:
            for prompt in itertools.islice(waiting, size - len(alive)):
                alive.append((prompt, Stopwatch(), time.monotonic() + self._latency_s))
            if not alive:
                return
            prompt, watch, done_at = alive.popleft()
            time.sleep(max(0.0, done_at - time.monotonic()))
            watch.first_token()
            yield prompt, self._generate(prompt, params, watch.stop())

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
        """Answer one prompt after one latency."""
        watch = Stopwatch()
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        watch.first_token()
        return self._generate(prompt, params, watch.stop())

    def _generate(self, prompt: Prompt, params: GenerationParams, timing: Timing) -> Generated:
        if self._fail_on is not None and self._fail_on in prompt.text:
            error = ErrorInfo(type="EchoRefused", message=f"the prompt contains {self._fail_on!r}", retryable=False)
            return Generated(model=self._model.id, timing=timing, error=error)
        words = prompt.text.split()
        echoed = " ".join(words[: params.max_tokens])
        stops = [start for stop in params.stop_sequences if (start := echoed.find(stop)) >= 0]
        text = echoed[: min(stops)] if stops else echoed
        is_cut = not stops and len(words) > params.max_tokens
        answer = Answer(
            text=text,
            finish_reason="length" if is_cut else "stop",
            usage=Usage(input_tokens=len(words), output_tokens=len(text.split())),
        )
        return Generated(model=self._model.id, timing=timing, answers=(answer,) * params.n)
