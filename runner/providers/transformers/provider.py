"""Hugging Face Transformers, in this process: one left-padded `generate()` per batch."""

import gc
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import StringConstraints, validate_call

from runner.config.schema import STRICT, BatchMode, GenerationParams, ModelConfig, NonEmptyStr
from runner.errors import ConfigError, MissingPackageError, ModelError, OutOfMemoryError
from runner.providers import embedded
from runner.providers.errors import require_packages
from runner.providers.in_process import prompt_error, refuse_greedy_copies
from runner.providers.protocols import Continuation, ModelInfo
from runner.providers.transformers.causal_lm import CausalLM, PromptEncoder
from runner.providers.transformers.embedded import resolve
from runner.providers.transformers.gaps import measure_gap, measure_gap_changes
from runner.text import first_line
from runner.types import Answer, Generated, Prompt, Stopwatch, Usage

if TYPE_CHECKING:
    import torch

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
        trust_remote_code: run Python code that comes with the model, with all rights of the user.
    """

    name: ClassVar[str] = "transformers"
    default_mode: ClassVar[BatchMode] = "static"
    is_local: ClassVar[bool] = True
    price_catalog: ClassVar[str | None] = None
    supported_params = frozenset({"temperature", "top_p", "top_k", "stop_sequences", "n"})

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
        self._loaded_encoder: PromptEncoder | None = None
        self._loaded_model: CausalLM | None = None

    def validate(self, params: GenerationParams) -> None:
        """Raise ConfigError for several answers to a prompt without sampling: all would be the same text."""
        refuse_greedy_copies(params)

    def check(self) -> None:
        """Raise UsageError where a package is missing, that of an embedded model's weights included."""
        require_packages("transformers", "torch", "transformers", "accelerate")
        embedded.check(self._config.id)

    def __enter__(self) -> Self:
        _import_libraries()
        if self._trust_remote_code:
            log.warning("trust_remote_code is on: Python code from the model %r is run", self._config.id)
        with _model_errors(self._config.id):
            self._loaded_model = self._load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loaded_model = self._loaded_encoder = None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def describe(self) -> Mapping[str, Any]:
        """Return device, dtype, attention, threads and whether prompts take the chat template."""
        import torch

        model = self._model.model
        described = {
            "gen_ai.provider.name": "transformers",
            "gen_ai.operation.name": "chat" if self._encoder.uses_template else "text_completion",
            "sends_seed": True,
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attn_implementation": model.config._attn_implementation,
            "chat_template": self._encoder.uses_template,
            "model_revision": getattr(model.config, "_commit_hash", None),
            "parameters": model.num_parameters(),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }
        if model.device.type == "cuda":
            described["gpu"] = torch.cuda.get_device_name(model.device)
            described["cuda"] = torch.version.cuda
        return described

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the embedded models and the models in the Hugging Face cache. Loads no model."""
        _import_libraries()
        from huggingface_hub import CacheNotFound, scan_cache_dir

        models = [
            ModelInfo(id=model_id, kind="embedded", detail=model.requirement)
            for model_id, model in embedded.MODELS.items()
        ]
        try:
            repos = scan_cache_dir().repos
        except CacheNotFound:
            repos = frozenset()
        return models + [
            ModelInfo(id=repo.repo_id, kind="cached", detail=f"{repo.size_on_disk / 2**20:,.0f} MiB")
            for repo in sorted(repos, key=lambda repo: repo.repo_id)
            if repo.repo_type == "model"
        ]

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the number of a prompt's tokens, those of the chat template included."""
        return len(self._encoder.encode(prompt))

    def tokenize(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Return the token ids of each text, without special tokens. A lone surrogate is replaced by U+FFFD.

        The tokenizer comes from files of this machine: who tokenizes texts of a record did not choose its model.
        """
        if not texts:
            return []
        if self._loaded_encoder is None:
            self._loaded_encoder = self._load_encoder(local_files_only=True)
        encodable = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
        rows: list[list[int]] = self._encoder.tokenizer(encodable, add_special_tokens=False)["input_ids"]
        return rows

    def token_text(self, token_id: int) -> str:
        """Return one token as text, special tokens by their names."""
        text: str = self._encoder.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        return text

    def track_gpu_memory(self) -> Callable[[], float] | None:
        """Reset CUDA's peak of allocated memory; return what reads the peak since then, in MiB. None without CUDA."""
        import torch

        device = self._model.model.device
        if device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: float(torch.cuda.max_memory_allocated(device)) / 2**20

    def gap(self, prefix: Continuation, first: int, second: int) -> float:
        """Return the logit of token `first` minus that of token `second` after the prefix, computed alone."""
        token_ids = [*self._encoder.encode(prefix.prompt), *prefix.token_ids]
        return measure_gap(self._model.model, token_ids, first, second)

    def gap_changes(self, sequence: Continuation, copies: int) -> Sequence[float]:
        """Return how far rounding moves the gap of the two best tokens at each new token: `measure_gap_changes`."""
        prompt_ids = self._encoder.encode(sequence.prompt)
        return measure_gap_changes(self._model.model, prompt_ids, sequence.token_ids, copies)

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        """Generate once for all prompts. A prompt that is too long for the model, or has no tokens, fails alone.

        Raises:
            OutOfMemoryError: the batch does not fit on the device.
        """
        from transformers import set_seed

        watch = Stopwatch()
        encoded = [self._encoder.encode(prompt) for prompt in prompts]
        model = self._model
        error_of = partial(prompt_error, params=params, context_length=model.context_length, model_id=self._config.id)
        errors = [error_of(prompt, len(ids)) for prompt, ids in zip(prompts, encoded, strict=True)]
        accepted = [ids for ids, error in zip(encoded, errors, strict=True) if error is None]
        set_seed(params.seed)
        with _memory_errors(len(prompts), max(map(len, encoded)), params, model.model.device.type):
            rows = model.generate(accepted, params, watch)
        read = iter([(row.token_ids, *row.read()) for row in rows])
        timing = watch.stop()
        results = []
        for ids, error in zip(encoded, errors, strict=True):
            answers = tuple(
                Answer(
                    text=text,
                    finish_reason=finish_reason,
                    usage=Usage(input_tokens=len(ids), output_tokens=len(token_ids)),
                    token_ids=tuple(token_ids),
                )
                for token_ids, text, finish_reason in itertools.islice(read, 0 if error else params.n)
            )
            results.append(Generated(model=self._config.id, timing=timing, answers=answers, error=error))
        return results

    @property
    def _model(self) -> CausalLM:
        if self._loaded_model is None:
            raise RuntimeError("the model is loaded inside `with provider:` only")
        return self._loaded_model

    @property
    def _encoder(self) -> PromptEncoder:
        """The tokenizer, loaded on first use: counting tokens needs no model."""
        if self._loaded_encoder is None:
            self._loaded_encoder = self._load_encoder(local_files_only=False)
        return self._loaded_encoder

    def _load_encoder(self, *, local_files_only: bool) -> PromptEncoder:
        _import_libraries()
        from huggingface_hub import snapshot_download
        from transformers import AutoTokenizer

        source = self._source
        with _model_errors(self._config.id):
            if local_files_only and not Path(source["pretrained_model_name_or_path"]).is_dir():
                # transformers requests some files of the hub even with local_files_only, but none of a folder
                revision = source.pop("revision", None)
                folder = snapshot_download(self._config.id, revision=revision, local_files_only=True)
                source["pretrained_model_name_or_path"] = folder
            tokenizer = AutoTokenizer.from_pretrained(**source, padding_side="left", local_files_only=local_files_only)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return PromptEncoder(tokenizer, use_template=self._chat_template)

    @property
    def _source(self) -> dict[str, Any]:
        revision = {} if self._config.revision is None else {"revision": self._config.revision}
        folder = resolve(self._config.id)
        return {"pretrained_model_name_or_path": folder, "trust_remote_code": self._trust_remote_code, **revision}

    def _load(self) -> CausalLM:
        import torch
        from transformers import AutoModelForCausalLM

        device = torch.device(_choose_device(self._device_name))
        model = AutoModelForCausalLM.from_pretrained(
            **self._source, dtype=self._dtype_name, attn_implementation=self._attention
        )
        if self._dtype_name == "auto":
            model = model.to(_choose_dtype(model.dtype, device))
        model = model.to(device).eval()
        if self._compile:
            model.forward = torch.compile(model.forward, dynamic=True)
        return CausalLM(model, self._encoder.tokenizer)


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


def _choose_device(name: str) -> str:
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, is_available in available.items() if is_available)
    if not available[name.partition(":")[0]]:
        devices = ", ".join(device for device, is_available in available.items() if is_available)
        raise ConfigError(f"provider.device={name!r}: this machine (or this build of torch) has: {devices}")
    return name


def _choose_dtype(checkpoint: "torch.dtype", device: "torch.device") -> "torch.dtype":
    import torch

    if device.type != "cpu" or checkpoint == torch.float32:
        return checkpoint
    has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has_bfloat16 and checkpoint == torch.bfloat16 else torch.float32


@contextmanager
def _model_errors(model_id: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"model.id={model_id!r} cannot be loaded: {first_line(error)}. Without the hub, use a model folder "
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
