"""What a provider is: small protocols, one per way of being called.

A provider knows nothing of logging, retries, files or MLflow. Its constructor is cheap: it validates its settings and
imports nothing heavy. `with provider:` loads what it needs and frees it at the end.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from runner.config.schema import BatchMode, GenerationParams
from runner.types import Generated, Prompt


class Provider(Protocol):
    """What every provider has, whatever its modes."""

    name: ClassVar[str]
    default_mode: ClassVar[BatchMode]
    is_local: ClassVar[bool]
    """Local providers are warmed up; a hosted one would be paid for it."""

    @property
    def price_catalog(self) -> str | None:
        """The provider's id in genai-prices; None where nothing is charged per token, or it is not known what."""

    @property
    def supported_params(self) -> frozenset[str]:
        """The generation keys that it can honour; any other that is set is refused before a run."""

    def validate(self, params: GenerationParams) -> None:
        """Raise ConfigError for values, or pairs of values, that this provider cannot honour."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def describe(self) -> Mapping[str, Any]:
        """Return what was resolved on loading (device, dtype, threads), for the record.

        `gen_ai.provider.name` and `gen_ai.operation.name` are OpenTelemetry's words for it; `sends_seed` says whether
        the run's seed goes with a request.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that an account or a machine can use. `id` is what `model.id` takes."""

    id: str
    kind: str
    detail: str
    shutdown_date: str | None = None


@runtime_checkable
class ModelLister(Protocol):
    """A provider that can say which models there are."""

    def list_models(self) -> Sequence[ModelInfo]:
        """Return them. Needs no `with`; asks a service that there is, with the account's credentials.

        Raises:
            CallError: the service does not say.
        """


@runtime_checkable
class TokenCounter(Protocol):
    """A provider that can count a prompt's input tokens before it generates."""

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the input tokens of one prompt as this model will see it."""


@runtime_checkable
class Tokenizer(Protocol):
    """A provider that can cut texts into its model's tokens on this machine, without loading the model."""

    def tokenize(self, texts: Sequence[str]) -> Sequence[Sequence[int] | Sequence[str]]:
        """Return the tokens of each text, none added: of equal texts the same, whatever stands in them.

        Raises:
            UsageError: the tokenizer cannot be had.
        """


@runtime_checkable
class StaticProvider(Protocol):
    """One call, many prompts."""

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        """Return what was generated for each prompt, in their order; `params.n` answers each, or one error."""


@runtime_checkable
class ContinuousProvider(Protocol):
    """Many prompts, outcomes as they finish."""

    def generate_continuously(
        self, prompts: Iterable[Prompt], params: GenerationParams, size: int
    ) -> Iterator[tuple[Prompt, Generated]]:
        """Keep `size` sequences alive and yield each prompt with what was generated for it, as it finishes."""


@runtime_checkable
class ConcurrentProvider(Protocol):
    """One prompt a call; the mode keeps `size` calls in flight.

    A provider whose connections live in an event loop is an asynchronous context manager too: the loop that calls
    `generate` enters it first.
    """

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
        """Return the prompt's `params.n` answers, or an error that concerns this prompt alone.

        Raises:
            CallError: the call has no answer; its policy says whether asking again may help.
        """


@runtime_checkable
class ListProvider(Protocol):
    """A service that takes a list of prompts in one request: static batches over HTTP."""

    def validate_lists(self) -> None:
        """Raise ConfigError if requests, as they are configured, have no place for a list."""

    async def generate_list(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        """Return what was generated for each prompt, in their order.

        Raises:
            CallError: the request as a whole has no answer.
        """


LIST_TIMEOUT_S = 30.0
"""How long a service may take to list its models."""
