"""Answers from the prompt itself: free, offline, and fast enough to measure the runner instead of a model.

Its tokens are words: an answer is the prompt's first `max_tokens` words. It has every batch mode.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, validate_call

from runner.config import STRICT, BatchMode, GenerationParams, ModelConfig
from runner.providers.base import JobRef, JobStatus, ModelInfo
from runner.records import Completion, ErrorInfo, Failure, Outcome, Prompt, Stopwatch, Timing, Usage


class EchoProvider:
    """The free provider. `latency_s` is waited per call; prompts that contain `fail_on` fail.

    Args:
        model: its id stands in the outcomes.
        latency_s: seconds that every call takes; a stand-in for a service's answer time.
        fail_on: a prompt with this text in it becomes a failure; null for none.
    """

    name: ClassVar[str] = "echo"
    default_mode: ClassVar[BatchMode] = "concurrent"
    is_local: ClassVar[bool] = True
    price_list: ClassVar[str | None] = None
    honours = frozenset({"stop_sequences", "n"})

    @validate_call(config=STRICT)
    def __init__(self, *, model: ModelConfig, latency_s: Annotated[float, Field(ge=0)], fail_on: str | None) -> None:
        self._model = model
        self._latency_s = latency_s
        self._fail_on = fail_on
        self._jobs: dict[str, tuple[Sequence[Prompt], GenerationParams]] = {}
        self._job_ids = itertools.count()

    def check(self, params: GenerationParams) -> None:
        """Accept all values of what it honours."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.clear()

    def describe(self) -> Mapping[str, Any]:
        """Return what it is called; an echo depends on nothing."""
        return {"gen_ai.provider.name": "echo", "gen_ai.operation.name": "chat", "sends_seed": False}

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the one there is: an echo under any name."""
        return [ModelInfo(id=self._model.id, kind="built in", detail="answers from the prompt")]

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the number of words."""
        return len(_words(prompt))

    def tokenize(self, texts: Sequence[str]) -> Sequence[Sequence[str]]:
        """Return the words of each text."""
        return [text.split() for text in texts]

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Outcome]:
        """Answer all prompts after one latency."""
        watch = Stopwatch()
        self._wait()
        watch.first_token()
        timing = watch.stop()
        return [outcome for prompt in prompts for outcome in self._answer(prompt, params, timing)]

    def generate_continuously(
        self, prompts: Iterable[Prompt], params: GenerationParams, size: int
    ) -> Iterator[Sequence[Outcome]]:
        """Keep `size` prompts alive, each for one latency, and answer the oldest as it is done."""
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
            yield self._answer(prompt, params, watch.stop())

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Sequence[Outcome]:
        """Answer one prompt after one latency."""
        watch = Stopwatch()
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        watch.first_token()
        return self._answer(prompt, params, watch.stop())

    def submit(self, prompts: Sequence[Prompt], params: GenerationParams) -> JobRef:
        """Keep the prompts until they are collected; jobs live as long as this provider is open."""
        job_id = f"echo-{next(self._job_ids)}"
        self._jobs[job_id] = (prompts, params)
        return JobRef(provider=self.name, job_id=job_id, prompt_ids=tuple(prompt.id for prompt in prompts))

    def poll(self, job: JobRef) -> JobStatus:
        """Return that the job is done, or that it was cancelled."""
        total = len(job.prompt_ids)
        if job.job_id in self._jobs:
            return JobStatus(state="done", completed=total, total=total)
        return JobStatus(state="cancelled", completed=0, total=total)

    def collect(self, job: JobRef) -> Iterator[Outcome]:
        """Yield the answers, last prompt first: the order of a job's answers is never to be relied on."""
        prompts, params = self._jobs.pop(job.job_id)
        for prompt in reversed(prompts):
            yield from self._answer(prompt, params, Stopwatch().stop())

    def cancel(self, job: JobRef) -> None:
        """Forget the job."""
        self._jobs.pop(job.job_id, None)

    def _wait(self) -> None:
        if self._latency_s:
            time.sleep(self._latency_s)

    def _answer(self, prompt: Prompt, params: GenerationParams, timing: Timing) -> Sequence[Outcome]:
        if self._fail_on is not None and self._fail_on in prompt.text:
            error = ErrorInfo(type="EchoRefused", message=f"the prompt contains {self._fail_on!r}", retryable=False)
            return [Failure(prompt_id=prompt.id, error=error, timing=timing, model=self._model.id)]
        words = _words(prompt)
        answer = " ".join(words[: params.max_tokens])
        stops = [at for stop in params.stop_sequences if (at := answer.find(stop)) >= 0]
        text = answer[: min(stops)] if stops else answer
        cut = not stops and len(words) > params.max_tokens
        usage = Usage(input_tokens=len(words), output_tokens=len(text.split()))
        return [
            Completion(
                prompt_id=prompt.id,
                choice=choice,
                text=text,
                finish_reason="length" if cut else "stop",
                usage=usage,
                timing=timing,
                model=self._model.id,
            )
            for choice in range(params.n)
        ]


def _words(prompt: Prompt) -> list[str]:
    return prompt.text.split()
