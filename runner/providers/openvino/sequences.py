"""Keeps sequences alive in a pipeline of OpenVINO GenAI, and yields each prompt when its answers have ended.

Source: openvino-genai 2026.4, `ContinuousBatchingPipeline`, `GenerationHandle`, `GenerationConfig`.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from runner.config.schema import GenerationParams
from runner.providers.answer_tokens import AnswerTokens
from runner.providers.in_process import derive_seed, prompt_error
from runner.providers.openvino.codec import Codec
from runner.types import Answer, ChunkTimes, ErrorInfo, Generated, Prompt, Stopwatch, Timing, Usage

if TYPE_CHECKING:
    from openvino import Tensor
    from openvino_genai import ContinuousBatchingPipeline, GenerationConfig

_REQUEST_IDS = itertools.count()
"""A pipeline may still hold a cancelled request, whose id must not come again."""


class _Request:
    """A prompt whose answers are generated."""

    def __init__(self, prompt: Prompt, input_ids: "Tensor", watch: Stopwatch, n: int) -> None:
        self.prompt, self.input_ids, self.watch = prompt, input_ids, watch
        self.answers: list[Answer | None] = [None] * n
        self.chunks = [ChunkTimes() for _ in range(n)]
        self.error: ErrorInfo | None = None
        self.open = n

    @property
    def input_tokens(self) -> int:
        return int(self.input_ids.shape[1])

    def end(self, choice: int, answer: Answer | ErrorInfo) -> None:
        """Note what became of one answer."""
        self.open -= 1
        if isinstance(answer, Answer):
            self.answers[choice] = answer
        else:
            self.error = answer

    def timing(self, choice: int) -> Timing:
        """Return the timing of one answer, up to its last token."""
        chunks = self.chunks[choice]
        return self.watch.stop_stream([chunks], ended_at=chunks.tokens_at[-1])

    def generated(self, model_id: str) -> Generated:
        """Return what became of the prompt. An answer that failed fails the prompt."""
        answers = () if self.error else tuple(answer for answer in self.answers if answer)
        ended_at = max((chunks.tokens_at[-1] for chunks in self.chunks if chunks.tokens_at), default=None)
        timing = self.watch.stop_stream(self.chunks, ended_at=ended_at)
        return Generated(model=model_id, timing=timing, answers=answers, error=self.error)


class _Sequence:
    """One answer that is being generated. `started_again` is whether the pipeline has ignored it once."""

    def __init__(self, request: _Request, choice: int) -> None:
        self.request, self.choice = request, choice
        self.started_again = False

    def start(self, pipeline: "ContinuousBatchingPipeline", config: "GenerationConfig", tokens: AnswerTokens) -> None:
        self.tokens = tokens
        self.chunks = self.request.chunks[self.choice] = ChunkTimes()
        self.handle = pipeline.add_request(next(_REQUEST_IDS), self.request.input_ids, config)

    def read(self) -> bool:
        """Take the tokens that the last step generated; return whether the sequence is alive."""
        from openvino_genai import GenerationStatus

        while self.handle.can_read():
            for output in self.handle.read().values():  # one at most: an ignored request has none
                self.chunks.add(has_text=True)
                for token in output.generated_ids:
                    self.tokens.append(token)
        is_running: bool = self.handle.get_status() == GenerationStatus.RUNNING
        if is_running and self.tokens.has_ended:
            self.handle.stop()  # at a stop sequence, of which the pipeline does not know
        return is_running and not self.tokens.has_ended


class Sequences:
    """Generates with a pipeline: at most so many sequences at once, and a new one as soon as one has ended.

    Args:
        pipeline: its scheduler takes as many sequences.
        codec: the model's tokenizer.
        params: how to generate. An answer's seed follows from the run's, the prompt's id and the number of the answer,
            so that its text does not depend on its neighbours.
        end_ids: tokens that end a sequence.
        model_id: for outcomes and messages.
        context_length: tokens that the model can attend to.
    """

    def __init__(
        self,
        pipeline: "ContinuousBatchingPipeline",
        codec: Codec,
        params: GenerationParams,
        *,
        end_ids: frozenset[int],
        model_id: str,
        context_length: int,
    ) -> None:
        self._pipeline, self._codec, self._params = pipeline, codec, params
        self._end_ids, self._model_id = end_ids, model_id
        self._error_of = partial(prompt_error, params=params, context_length=context_length, model_id=model_id)
        self._alive: list[_Sequence] = []
        self._waiting: deque[_Sequence] = deque()
        self._ignored: deque[_Sequence] = deque()

    def generate(self, prompts: Iterable[Prompt], size: int) -> Iterator[tuple[Prompt, Generated]]:
        """Yield each prompt with what was generated for it, as it ends. A prompt is taken when a sequence may start."""
        left = iter(prompts)
        try:
            while True:
                yield from self._fill(left, size)
                if not self._alive:
                    return
                self._pipeline.step()
                yield from self._end()
        finally:
            self._cancel()

    def _fill(self, prompts: Iterator[Prompt], size: int) -> Iterator[tuple[Prompt, Generated]]:
        """Start sequences until `size` are alive. Yield the prompts that are refused."""
        while len(self._alive) < self._max_alive(size):
            if sequences := self._ignored or self._waiting:
                self._start(sequences.popleft())
            elif (prompt := next(prompts, None)) is None:
                return
            elif (refused := self._enqueue(prompt)) is not None:
                yield prompt, refused

    def _max_alive(self, size: int) -> int:
        """Return how many sequences may be alive: one that the pipeline has ignored has the whole cache to itself."""
        return 1 if self._ignored or any(sequence.started_again for sequence in self._alive) else size

    def _enqueue(self, prompt: Prompt) -> Generated | None:
        """Add the sequences of a prompt to those that wait; return the error of a prompt that is refused."""
        watch = Stopwatch()
        request = _Request(prompt, self._codec.encode(prompt), watch, self._params.n)
        if (error := self._error_of(prompt, request.input_tokens)) is not None:
            return Generated(model=self._model_id, timing=watch.stop(), error=error)
        self._waiting.extend(_Sequence(request, choice) for choice in range(self._params.n))
        return None

    def _start(self, sequence: _Sequence) -> None:
        tokens = AnswerTokens(
            end_ids=self._end_ids,
            special_ids=self._codec.special_ids,
            stop_sequences=self._params.stop_sequences,
            decode=self._codec.decode,
        )
        sequence.start(self._pipeline, self._generation_config(sequence), tokens)
        self._alive.append(sequence)

    def _generation_config(self, sequence: _Sequence) -> "GenerationConfig":
        """Return the engine's parameters. What it is not given comes from its own defaults, never from the model's."""
        from openvino_genai import GenerationConfig

        params = self._params
        sampling: dict[str, Any] = {}
        if params.temperature > 0:
            names = (sequence.request.prompt.id, str(sequence.choice))
            sampling = {
                "do_sample": True,
                "temperature": params.temperature,
                "rng_seed": derive_seed(params.seed, names),
            }
            sampling |= {name: value for name in ("top_p", "top_k") if (value := getattr(params, name)) is not None}
        if self._end_ids:
            sampling |= {"eos_token_id": min(self._end_ids), "stop_token_ids": set(self._end_ids)}
        return GenerationConfig(max_new_tokens=params.max_tokens, **sampling)

    def _end(self) -> Iterator[tuple[Prompt, Generated]]:
        """Read what the last step generated. Yield the prompts whose last answer has ended."""
        was_alive, self._alive = self._alive, []
        ended: list[_Sequence] = []
        for sequence in was_alive:
            (self._alive if sequence.read() else ended).append(sequence)
        for sequence in ended:
            request = sequence.request
            if (answer := self._answer(sequence)) is not None:
                request.end(sequence.choice, answer)
            if not request.open:
                yield request.prompt, request.generated(self._model_id)

    def _answer(self, sequence: _Sequence) -> Answer | ErrorInfo | None:
        """Return the answer of a sequence that has ended, or why it has none; None where it is started again.

        A pipeline ignores all of its requests as soon as the cache has no room for any of them. Those that fit are
        answered when they are alone.
        """
        from openvino_genai import GenerationStatus

        status, request = sequence.handle.get_status(), sequence.request
        token_ids = sequence.tokens.token_ids
        if token_ids and (sequence.tokens.has_ended or status == GenerationStatus.FINISHED):
            text, finish_reason = sequence.tokens.read()
            return Answer(
                text=text,
                finish_reason=finish_reason,
                usage=Usage(input_tokens=request.input_tokens, output_tokens=len(token_ids)),
                token_ids=tuple(token_ids),
                timing=request.timing(sequence.choice) if self._params.n > 1 else None,
            )
        if status == GenerationStatus.IGNORED and not sequence.started_again:
            sequence.started_again = True
            self._ignored.append(sequence)
            return None
        return _error(status.name, request.input_tokens, self._params.max_tokens)

    def _cancel(self) -> None:
        """Take what is alive out of the pipeline: an interrupt, or an error, left it there."""
        for sequence in self._alive:
            sequence.handle.cancel()
        if self._alive:
            self._pipeline.step()
        self._alive.clear()


def _error(status: str, input_tokens: int, max_tokens: int) -> ErrorInfo:
    if status == "IGNORED":
        message = (
            f"the cache has no room for {input_tokens} input tokens and generation.max_tokens={max_tokens}, even of "
            "this prompt alone: raise provider.cache_gb"
        )
        return ErrorInfo(type="CacheExhausted", message=message, retryable=False)
    message = f"the engine ended the request with status {status} and no answer"
    return ErrorInfo(type="NoAnswer", message=message, retryable=False)
