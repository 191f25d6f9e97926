"""Hugging Face Transformers, in this process: one left-padded `generate()` per batch, every row counted by itself.

Sources: transformers 5.23 `generation/utils.py` (padding, end-of-sequence fill, inherited generation configs).
"""

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import StringConstraints, validate_call

from runner.config import STRICT, BatchMode, GenerationParams, ModelConfig, NonEmptyStr
from runner.errors import ConfigError, MissingPackageError, ModelError, OutOfMemoryError
from runner.providers import _embedded
from runner.records import (
    Completion,
    ErrorInfo,
    Failure,
    FinishReason,
    Outcome,
    Prompt,
    Stopwatch,
    Timing,
    Usage,
)

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

Device = Annotated[str, StringConstraints(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]


class TransformersProvider:
    """A causal language model on this machine.

    Args:
        model: `id` is a folder, a hub id, or an embedded model (`embedded/NAME`).
        device: auto takes CUDA, else MPS, else the CPU.
        dtype: auto takes the checkpoint's own, but on a CPU without bfloat16 instructions float32.
        attn_implementation: as in `from_pretrained` (sdpa, eager, flash_attention_2); null lets transformers choose.
        compile: compile the forward pass with torch.compile; the first batches are then slow: use batch.warmup.
        chat_template: apply the tokenizer's chat template where it has one; false sends the plain text (base models).
        trust_remote_code: run Python code that comes with the model. It can do anything that you can.
    """

    name: ClassVar[str] = "transformers"
    default_mode: ClassVar[BatchMode] = "static"
    is_local: ClassVar[bool] = True
    honours: ClassVar[frozenset[str]] = frozenset({"temperature", "top_p", "top_k", "stop_sequences", "n"})

    @validate_call(config=STRICT)
    def __init__(
        self,
        *,
        model: ModelConfig,
        device: Device,
        dtype: Dtype,
        attn_implementation: NonEmptyStr | None,
        compile: bool,
        chat_template: bool,
        trust_remote_code: bool,
    ) -> None:
        self._config = model
        self._device_name, self._dtype_name = device, dtype
        self._attention = attn_implementation
        self._compile = compile
        self._chat_template = chat_template
        self._trust_remote_code = trust_remote_code
        self._loaded: _Loaded | None = None

    def check(self, params: GenerationParams) -> None:
        """Refuse several choices of a greedy answer: they would all be the same text."""
        if params.n > 1 and params.temperature == 0:
            raise ConfigError(
                f"generation.n={params.n} with temperature=0: greedy gives the same text {params.n} times: "
                "set generation.temperature above 0 or generation.n=1"
            )

    def __enter__(self) -> Self:
        _import_libraries()
        if self._trust_remote_code:
            log.warning("trust_remote_code is on: Python code from the model %r is run", self._config.id)
        with _model_errors(self._config.id):
            self._loaded = self._load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loaded = None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def describe(self) -> Mapping[str, Any]:
        """Return device, dtype, attention, threads and how prompts are written."""
        import torch

        model = self._here.model
        facts = {
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attn_implementation": model.config._attn_implementation,
            "chat_template": self._here.uses_template,
            "model_revision": getattr(model.config, "_commit_hash", None),
            "parameters": model.num_parameters(),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }
        if model.device.type == "cuda":
            facts["gpu"] = torch.cuda.get_device_name(model.device)
            facts["cuda"] = torch.version.cuda
        return facts

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the tokens of the prompt as the model sees it, its template's included."""
        return len(self._here.encode(prompt))

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Outcome]:
        """Generate once for all prompts. A prompt too long for the model fails alone.

        Raises:
            OutOfMemoryError: the batch does not fit on the device.
        """
        from transformers import set_seed

        watch = Stopwatch()
        encoded = [self._here.encode(prompt) for prompt in prompts]
        fitting = [len(ids) + params.max_tokens <= self._here.context_length for ids in encoded]
        set_seed(params.seed)
        with _memory_errors(len(prompts), max(map(len, encoded)), params, self._here.model.device.type):
            rows = self._here.generate([ids for ids, fits in zip(encoded, fitting, strict=True) if fits], params, watch)
        answers = [self._here.answer(row, params) for row in rows]
        timing = watch.stop()
        waiting = iter(answers)
        return [
            outcome
            for prompt, ids, fits in zip(prompts, encoded, fitting, strict=True)
            for outcome in (
                [self._completion(prompt, len(ids), choice, next(waiting), timing) for choice in range(params.n)]
                if fits
                else [self._too_long(prompt, len(ids), params, timing)]
            )
        ]

    @property
    def _here(self) -> "_Loaded":
        if self._loaded is None:
            raise RuntimeError("the model is loaded inside `with provider:` only")
        return self._loaded

    def _load(self) -> "_Loaded":
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        source: dict[str, Any] = {
            "pretrained_model_name_or_path": _embedded.resolve(self._config.id),
            "trust_remote_code": self._trust_remote_code,
        }
        if self._config.revision is not None:
            source["revision"] = self._config.revision
        tokenizer = AutoTokenizer.from_pretrained(**source, padding_side="left")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        device = torch.device(_choose_device(self._device_name))
        model = AutoModelForCausalLM.from_pretrained(
            **source, dtype="auto" if self._dtype_name == "auto" else self._dtype_name,
            attn_implementation=self._attention,
        )  # fmt: skip
        if self._dtype_name == "auto":
            model = model.to(_choose_dtype(model.dtype, device))
        model = model.to(device).eval()
        if self._compile:
            model.forward = torch.compile(model.forward, dynamic=True)
        has_template = bool(getattr(tokenizer, "chat_template", None))
        return _Loaded(model=model, tokenizer=tokenizer, uses_template=self._chat_template and has_template)

    def _completion(
        self, prompt: Prompt, input_tokens: int, choice: int, answer: "_Answer", timing: Timing
    ) -> Completion:
        return Completion(
            prompt_id=prompt.id,
            choice=choice,
            text=answer.text,
            finish_reason=answer.finish_reason,
            usage=Usage(input_tokens=input_tokens, output_tokens=answer.tokens),
            timing=timing,
            model=self._config.id,
        )

    def _too_long(self, prompt: Prompt, input_tokens: int, params: GenerationParams, timing: Timing) -> Failure:
        message = (
            f"{input_tokens} input tokens and generation.max_tokens={params.max_tokens} are more than the "
            f"{self._here.context_length} that model {self._config.id!r} can attend to"
        )
        error = ErrorInfo(type="ContextLengthExceeded", message=message, retryable=False)
        return Failure(prompt_id=prompt.id, error=error, timing=timing, model=self._config.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    text: str
    tokens: int
    finish_reason: FinishReason


class _Loaded:
    """A model with its tokenizer: from prompts to token rows, and from token rows to answers."""

    def __init__(self, *, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", uses_template: bool) -> None:
        self.model = model
        self.uses_template = uses_template
        self._tokenizer = tokenizer
        self._eos = _end_of_sequence_ids(model, tokenizer)
        self.context_length = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**62
        # generate() fills what a call leaves open from the checkpoint's own generation config (top_k, repetition
        # penalty ...): an experiment states everything itself.
        model.generation_config = type(model.generation_config)()

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the token ids of one prompt, template applied, nothing padded."""
        if self.uses_template:
            messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self._tokenizer(prompt.text)["input_ids"])

    def generate(self, encoded: list[list[int]], params: GenerationParams, watch: Stopwatch) -> list[list[int]]:
        """Return the new tokens of every row, `n` neighbours per prompt, each as long as the longest."""
        import torch

        if not encoded:
            return []
        inputs = self._tokenizer.pad({"input_ids": encoded}, padding_side="left", return_tensors="pt")
        inputs = inputs.to(self.model.device)
        stops = {"tokenizer": self._tokenizer} if params.stop_sequences else {}
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                generation_config=self._generation_config(params),
                streamer=_FirstToken(watch),
                **stops,
            )
        rows: list[list[int]] = output[:, inputs["input_ids"].shape[1] :].tolist()  # waits for the device
        return rows

    def answer(self, row: list[int], params: GenerationParams) -> _Answer:
        """Read one row up to its own end: the first end-of-sequence token or stop sequence, whichever is first."""
        end = next((at for at, token in enumerate(row) if token in self._eos), None)
        own = row if end is None else row[: end + 1]
        text = self._decode(own)
        stop = min((at for stop in params.stop_sequences if (at := text.find(stop)) >= 0), default=None)
        if stop is not None:
            return _Answer(text=text[:stop], tokens=self._tokens_until_stop(own, params), finish_reason="stop")
        return _Answer(text=text, tokens=len(own), finish_reason="length" if end is None else "stop")

    def _tokens_until_stop(self, row: list[int], params: GenerationParams) -> int:
        """Return how many tokens were generated when a stop sequence was complete (bisection over the prefixes)."""
        low, high = 1, len(row)
        while low < high:
            middle = (low + high) // 2
            text = self._decode(row[:middle])
            if any(stop in text for stop in params.stop_sequences):
                high = middle
            else:
                low = middle + 1
        return low

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _generation_config(self, params: GenerationParams) -> "GenerationConfig":
        from transformers import GenerationConfig

        sampling: dict[str, Any] = {"do_sample": False}
        if params.temperature > 0:
            sampling = {
                "do_sample": True,
                "temperature": params.temperature,
                "top_p": params.top_p if params.top_p is not None else 1.0,
                "top_k": params.top_k if params.top_k is not None else 0,
                "num_return_sequences": params.n,
            }
        return GenerationConfig(
            max_new_tokens=params.max_tokens,
            eos_token_id=sorted(self._eos) or None,
            pad_token_id=self._tokenizer.pad_token_id,
            bos_token_id=self._tokenizer.bos_token_id,
            stop_strings=list(params.stop_sequences) or None,
            **sampling,
        )


class _FirstToken:
    """A streamer that only notes when the first new token is there: `generate()` puts the prompt first."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self._saw_prompt = False

    def put(self, _tokens: "torch.Tensor") -> None:
        if self._saw_prompt:
            self._watch.first_token()
        self._saw_prompt = True

    def end(self) -> None:
        """Nothing is left to flush."""


def _import_libraries() -> None:
    try:
        import accelerate  # noqa: F401
        import torch  # noqa: F401
        import transformers
    except ModuleNotFoundError as error:
        raise MissingPackageError.for_extra(
            "provider=transformers", package=str(error.name), extra="transformers"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.enable_propagation()


def _end_of_sequence_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Return the ids that end a sequence; chat models have several, named in the checkpoint's generation config."""
    for candidate in (
        model.generation_config.eos_token_id,
        model.config.eos_token_id,
        tokenizer.eos_token_id,
    ):
        if candidate is not None:
            return frozenset(candidate if isinstance(candidate, list | tuple) else [candidate])
    return frozenset()


def _choose_device(name: str) -> str:
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(kind for kind, here in available.items() if here)
    if not available[name.partition(":")[0]]:
        there = ", ".join(kind for kind, here in available.items() if here)
        raise ConfigError(f"provider.device={name!r}: this machine (or this build of torch) has: {there}")
    return name


def _choose_dtype(checkpoint: "torch.dtype", device: "torch.device") -> "torch.dtype":
    import torch

    if device.type != "cpu" or checkpoint == torch.float32:
        return checkpoint
    fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if fast and checkpoint == torch.bfloat16 else torch.float32


@contextmanager
def _model_errors(model_id: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"model.id={model_id!r} cannot be loaded: {first_line}. Without the hub, use a model folder "
            "(model.id=FOLDER), one that is in the Hugging Face cache, or the embedded one "
            "(model=transformers/default)"
        ) from error


@contextmanager
def _memory_errors(prompts: int, input_tokens: int, params: GenerationParams, device: str) -> Iterator[None]:
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "memory" not in str(error).lower():
            raise
        rows = f"{prompts} prompts x n={params.n}" if params.n > 1 else f"{prompts} prompts"
        raise OutOfMemoryError(
            f"out of memory on {device}: one batch of {rows}, {input_tokens} input tokens wide, with "
            f"generation.max_tokens={params.max_tokens}: try batch.size={max(1, prompts // 2)}, a smaller "
            "generation.max_tokens, or provider.dtype=bfloat16"
        ) from error
