"""What a provider is: small protocols, one per way of calling a provider.

A provider has no retries, and writes no files and nothing to MLflow. The constructor validates the settings and imports
nothing heavy. `with provider:` loads a model or opens a client, and releases it at the end.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Literal, Protocol, Self, runtime_checkable

from runner.config.schema import BatchMode, GenerationParams
from runner.types import Generated, Prompt


class Provider(Protocol):
    """What every provider has, whatever its modes.

    Attributes:
        name: the value of `provider`.
        default_mode: the batch mode where `batch.mode` is null.
        is_local: whether the model runs in this process. Only a local provider is warmed up, because a service bills.
    """

    name: ClassVar[str]
    default_mode: ClassVar[BatchMode]
    is_local: ClassVar[bool]

    @property
    def price_catalog(self) -> str | None:
        """The provider's id in genai-prices; None where no price per token is known."""

    @property
    def supported_params(self) -> frozenset[str]:
        """The generation keys that the provider supports. A run that sets any other is refused before it begins."""

    def validate(self, params: GenerationParams) -> None:
        """Raise ConfigError for values, or combinations of values, that the provider does not support."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def describe(self) -> Mapping[str, Any]:
        """Return what was resolved on loading (device, dtype, threads), as JSON values without secrets.

        The keys `gen_ai.provider.name` and `gen_ai.operation.name` are those of OpenTelemetry's semantic conventions;
        `sends_seed` is whether the run's seed is part of a request.
        """


@runtime_checkable
class Checkable(Protocol):
    """A provider that knows before it is entered whether what it needs is there."""

    def check(self) -> None:
        """Raise UsageError where a package, a key or an address is missing. Loads no model, and sends no prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that an account or a machine can use. `id` is what `model.id` takes."""

    id: str
    kind: str
    detail: str
    shutdown_date: str | None = None


@runtime_checkable
class ModelLister(Protocol):
    """A provider that can list its models."""

    def list_models(self) -> Sequence[ModelInfo]:
        """Return the models. Needs no `with`; a request to a service has the account's credentials.

        Raises:
            CallError: the service does not answer, or refuses.
        """


@runtime_checkable
class TokenCounter(Protocol):
    """A provider that can count a prompt's input tokens before it generates."""

    def count_tokens(self, prompt: Prompt) -> int:
        """Return the number of input tokens of one prompt, the chat template's included."""


@runtime_checkable
class Tokenizer(Protocol):
    """A provider that can tokenize texts on this machine, without loading the model."""

    def tokenize(self, texts: Sequence[str]) -> Sequence[Sequence[int] | Sequence[str]]:
        """Return the tokens of each text, without special tokens. Equal texts have equal tokens.

        Raises:
            UsageError: the tokenizer cannot be loaded.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """A prompt and the tokens that were generated for it until now."""

    prompt: Prompt
    token_ids: tuple[int, ...]


@runtime_checkable
class GapProvider(Protocol):
    """A loaded local model that can tell how far apart two next tokens are, by a path of its own.

    The path shares no padding, mask or position code with generation: token ids in, logits out. Used inside
    `with provider:`.
    """

    def token_text(self, token_id: int) -> str:
        """Return one token as text; a token that ends an answer has its name, such as `<|im_end|>`."""

    def gap(self, prefix: Continuation, first: int, second: int) -> float:
        """Return the logit of token `first` minus that of token `second` after the prefix, computed alone."""

    def gap_changes(self, sequence: Continuation, copies: int) -> Sequence[float]:
        """Return how far rounding moves the gap of the two best tokens, at each new token of the sequence.

        The gap of one pass over the sequence alone is compared with the gap computed token by token, by the sequence
        alone and among `copies` of it; the larger change counts. The cost is that of generating `copies` + 1 answers.
        """


@runtime_checkable
class DeviceMemory(Protocol):
    """A loaded local model whose device may have an allocator that keeps its peak."""

    def track_gpu_memory(self) -> Callable[[], float] | None:
        """Reset the allocator's peak; return what reads the peak since then, in MiB. None where there is no GPU."""


@runtime_checkable
class StaticProvider(Protocol):
    """Generates for many prompts in one call."""

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        """Return what was generated for each prompt, in their order; `params.n` answers each, or one error."""


@runtime_checkable
class ContinuousProvider(Protocol):
    """Generates for many prompts at once, and yields each result as it finishes."""

    def generate_continuously(
        self, prompts: Iterable[Prompt], params: GenerationParams, size: int
    ) -> Iterator[tuple[Prompt, Generated]]:
        """Keep `size` sequences alive and yield each prompt with what was generated for it, as it finishes."""


@runtime_checkable
class ConcurrentProvider(Protocol):
    """Generates for one prompt a call; the mode keeps `batch.size` calls in flight.

    A provider whose connections belong to an event loop is an asynchronous context manager too, and is entered in the
    loop that calls `generate`.
    """

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Generated:
        """Return the prompt's `params.n` answers, or an error that concerns this prompt alone.

        Raises:
            CallError: the call has no answer; `policy.retryable` is whether sending it again may help.
        """


@runtime_checkable
class BlockingProvider(Protocol):
    """A provider whose requests block threads, which nobody can interrupt."""

    def set_timeout(self, timeout_s: float) -> None:
        """Have no request block its thread for longer than this without a byte. Called before `with provider:`."""


@runtime_checkable
class ListProvider(Protocol):
    """A service that takes a list of prompts in one request: static batches over HTTP."""

    def validate_lists(self) -> None:
        """Raise ConfigError if requests, as configured, cannot hold a list of prompts."""

    async def generate_list(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        """Return what was generated for each prompt, in their order.

        Raises:
            CallError: the request as a whole has no answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """What a service takes in one batch job.

    Attributes:
        min_requests, max_requests: lines of a job's file.
        max_bytes: of a job's file.
        window: how long the service may take, in its words, for messages.
    """

    min_requests: int
    max_requests: int
    max_bytes: int
    window: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDiscount:
    """What a service takes off the price of a token that a job generates.

    Attributes:
        ratio: the share of the list price that is taken off.
        source: the service's page that says so, and when it was read.
    """

    ratio: float
    source: str


JobPhase = Literal["open", "ended", "refused", "queue_full"]
"""open: goes on. ended: results can be collected, be it of a part. refused: the service took no request of the job.
queue_full: as refused, but the account has too much waiting, so that the same job may be created later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """What a service says of a job.

    Attributes:
        state: in the service's word, such as in_progress or PartiallyCompleted.
        phase: what the state means.
        total, completed, failed: the service's counters of requests; None where it says nothing.
        reasons: why a job was refused or ended early, in the service's words, with the line where it names one.
        created_at, started_at, ended_at: by the service's clock; None where it says nothing.
    """

    state: str
    phase: JobPhase
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    reasons: tuple[str, ...] = ()
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """One line of a job's results.

    Attributes:
        custom_id: of the request.
        generated: what became of it; None where the job ended before the service came to it (expired, cancelled).
    """

    custom_id: str
    generated: Generated | None


@runtime_checkable
class JobProvider(Protocol):
    """A service with batch jobs: a file of requests is handed over, its results are collected hours later.

    All methods block. Those that send requests are called inside `with provider:`, raise CallError, and are called
    again where its policy says that this may help.
    """

    def job_limits(self) -> JobLimits:
        """Return what one job may hold."""

    def job_discount(self) -> JobDiscount:
        """Return what the service takes off its list price."""

    def validate_jobs(self, params: GenerationParams) -> None:
        """Raise ConfigError if the provider, as configured, cannot send these parameters in a job."""

    def job_line(self, custom_id: str, prompt: Prompt, params: GenerationParams) -> bytes:
        """Return a request as a line of a job's file, without the line's end. Its body is that of a single request."""

    def upload(self, file: BinaryIO, name: str) -> str:
        """Hand a job's file over; return where the service has it.

        Args:
            file: the lines, open at its beginning.
            name: the job's name, at most 63 letters, digits and hyphens. The same name replaces or repeats an upload.
        """

    def create(self, source: str, name: str) -> str:
        """Create the job of an uploaded file, and return its id. A second job of the same name must not be made where
        the service can prevent it.
        """

    def find(self, name: str) -> str | None:
        """Return the id of the job with this name, of which the answer to `create` may have been lost; None if there is
        none.
        """

    def poll(self, job_id: str) -> JobStatus:
        """Return how far a job is."""

    def collect(self, job_id: str, params: GenerationParams) -> Iterator[JobResult]:
        """Yield a job's results as they are read, in the service's order. Holds one line at a time."""

    def cancel(self, job_id: str) -> None:
        """Ask the service to end a job. What it has generated until then can be collected."""

    def remove_files(self, source: str, job_id: str) -> None:
        """Remove the job's files from the service, unless the provider is configured to keep them."""


LIST_TIMEOUT_S = 30.0
"""How long a service may take to list its models."""
