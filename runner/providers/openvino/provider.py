"""OpenVINO GenAI, in this process: continuous batching by the engine, kept full with `batch.size` sequences."""

import gc
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import PositiveInt, StringConstraints, validate_call

from runner.config.schema import STRICT, BatchMode, GenerationParams, ModelConfig
from runner.errors import ConfigError, ModelError
from runner.providers import embedded
from runner.providers.errors import require_packages
from runner.providers.in_process import refuse_greedy_copies
from runner.providers.openvino import files
from runner.providers.openvino.codec import Codec
from runner.providers.openvino.device import KvCachePrecision, Precision, check_device, describe_device, properties_of
from runner.providers.openvino.sequences import Sequences
from runner.providers.protocols import ModelInfo
from runner.types import Generated, Prompt

if TYPE_CHECKING:
    from openvino_genai import ContinuousBatchingPipeline, SchedulerConfig

log = logging.getLogger(__name__)

Device = Annotated[str, StringConstraints(pattern=r"^(CPU|GPU(\.\d+)?)$")]


class OpenVinoProvider:
    """A language model on this machine, in OpenVINO's runtime.

    Args:
        model: `id` is a folder that optimum-cli converted, a GGUF file, or an embedded model (`embedded/NAME`).
        device: as OpenVINO names it.
        precision: of the computation; auto lets the device choose, f32 switches quantized activations and cache off.
        kv_cache_precision: of the cache; auto is f32 where precision is f32, else the device's choice (a CPU's is u8).
        cache_gb: memory for the cache, in GiB; null lets it grow as sequences need it.
        max_batch_tokens: tokens of one step, of prompts and new ones together; at least batch.size.
        chat_template: apply the model's chat template where it has one; false sends the plain text (base models).
    """

    name: ClassVar[str] = "openvino"
    default_mode: ClassVar[BatchMode] = "continuous"
    is_local: ClassVar[bool] = True
    price_catalog: ClassVar[str | None] = None
    supported_params = frozenset({"temperature", "top_p", "top_k", "stop_sequences", "n"})

    @validate_call(config=STRICT)
    def __init__(
        self,
        *,
        model: ModelConfig,
        device: Device,
        precision: Precision,
        kv_cache_precision: KvCachePrecision,
        cache_gb: PositiveInt | None,
        max_batch_tokens: PositiveInt,
        chat_template: bool,
    ) -> None:
        if model.revision is not None:
            raise ConfigError(f"model.revision={model.revision!r}: provider 'openvino' loads files: set it to null")
        self._config = model
        self._device, self._precision = device, precision
        self._properties = properties_of(precision, kv_cache_precision)
        self._cache_gb, self._max_batch_tokens = cache_gb, max_batch_tokens
        self._chat_template = chat_template
        self._loaded_pipeline: ContinuousBatchingPipeline | None = None
        self._loaded_codec: Codec | None = None

    def validate(self, params: GenerationParams) -> None:
        """Raise ConfigError for several answers to a prompt without sampling: all would be the same text."""
        refuse_greedy_copies(params)

    def check(self) -> None:
        """Raise UsageError where the package or the model's files are missing."""
        require_packages("openvino", "openvino_genai")
        files.locate(self._config.id)

    def __enter__(self) -> Self:
        require_packages("openvino", "openvino_genai")
        from openvino_genai import ContinuousBatchingPipeline

        check_device(self._device, self._precision)
        self._files = files.read(self._config.id)
        if self._files.rounds_weights:
            log.warning(
                "%s: OpenVINO rounds the weights of a Q4_1 file as it reads them: its texts differ from those that "
                "other engines generate from the same file, as another model's do",
                self._config.id,
            )
        with self._model_errors():
            self._loaded_pipeline = ContinuousBatchingPipeline(
                str(self._files.path), self._scheduler(), self._device, self._properties
            )
            self._end_ids = _end_ids(self._loaded_pipeline)
            self._loaded_codec = Codec(
                self._loaded_pipeline.get_tokenizer(), self._files, use_template=self._chat_template
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loaded_pipeline = self._loaded_codec = None
        gc.collect()

    def describe(self) -> Mapping[str, Any]:
        """Return the device, precisions, threads, the cache, and whether prompts take the chat template."""
        return {
            "gen_ai.provider.name": "openvino",
            "gen_ai.operation.name": "chat" if self._codec.uses_template else "text_completion",
            "sends_seed": True,
            **describe_device(self._device, self._properties),
            "cache_gb": self._cache_gb,
            "max_batch_tokens": self._max_batch_tokens,
            "chat_template": self._codec.uses_template,
            "model_format": "gguf" if self._files.is_gguf else "openvino",
            "rounds_weights": self._files.rounds_weights,
            "context_length": self._files.context_length,
        }

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the embedded models: folders and GGUF files are wherever the user has them."""
        return [
            ModelInfo(id=model_id, kind="embedded", detail=model.requirement)
            for model_id, model in embedded.MODELS.items()
        ]

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the number of a prompt's tokens, those of the chat template included."""
        return int(self._codec.encode(prompt).shape[1])

    def generate_continuously(
        self, prompts: Iterable[Prompt], params: GenerationParams, size: int
    ) -> Iterator[tuple[Prompt, Generated]]:
        """Keep `size` sequences alive and yield each prompt with what was generated for it, as its answers end.

        A prompt that is too long for the model or the cache, or has no tokens, fails alone.

        Raises:
            ConfigError: a step of the engine cannot take as many sequences.
        """
        if size > self._max_batch_tokens:
            raise ConfigError(
                f"batch.size={size} with provider.max_batch_tokens={self._max_batch_tokens}: each sequence needs a "
                "token of every step: raise provider.max_batch_tokens"
            )
        sequences = Sequences(
            self._pipeline,
            self._codec,
            params,
            end_ids=self._end_ids,
            model_id=self._config.id,
            context_length=self._files.context_length,
        )
        yield from sequences.generate(prompts, size)

    @property
    def _pipeline(self) -> "ContinuousBatchingPipeline":
        if self._loaded_pipeline is None:
            raise RuntimeError("the model is loaded inside `with provider:` only")
        return self._loaded_pipeline

    @property
    def _codec(self) -> Codec:
        """The tokenizer, loaded on first use: counting tokens needs no model."""
        if self._loaded_codec is None:
            require_packages("openvino", "openvino_genai")
            from openvino_genai import Tokenizer

            model_files = files.read(self._config.id)
            with self._model_errors():
                tokenizer = Tokenizer(str(model_files.path))
            self._loaded_codec = Codec(tokenizer, model_files, use_template=self._chat_template)
        return self._loaded_codec

    def _scheduler(self) -> "SchedulerConfig":
        from openvino_genai import SchedulerConfig

        scheduler = SchedulerConfig()
        scheduler.cache_size = self._cache_gb or 0  # 0: the cache grows
        scheduler.max_num_batched_tokens = self._max_batch_tokens
        scheduler.max_num_seqs = self._max_batch_tokens  # batch.size is kept by what is added
        return scheduler

    @contextmanager
    def _model_errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, IndexError, ValueError) as error:  # the engine's: its last line is the reason
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise ModelError(
                f"model.id={self._config.id!r} cannot be loaded on {self._device} "
                f"(provider.cache_gb={self._cache_gb}): {reason}"
            ) from error


def _end_ids(pipeline: "ContinuousBatchingPipeline") -> frozenset[int]:
    """Return the ids that end a sequence: those of the model's generation config, else the tokenizer's."""
    config = pipeline.get_config()
    ids = {token for token in {config.eos_token_id, *config.stop_token_ids} if token >= 0}
    return frozenset(ids or {token for token in [pipeline.get_tokenizer().get_eos_token_id()] if token >= 0})
