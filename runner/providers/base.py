"""What a provider is: small protocols, one per batch mode, and the way from configuration to a provider.

A provider knows nothing of logging, retries, files or MLflow. Its constructor is cheap: it checks its settings and
imports nothing heavy. `with provider:` loads what it needs and gives it back at the end.
"""

import importlib
import inspect
import math
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from pydantic import ValidationError

from runner.config import BatchConfig, BatchMode, GenerationParams, RunConfig, explain, unknown_key
from runner.credentials import hidden
from runner.errors import ConfigError
from runner.records import Outcome, Prompt


class Provider(Protocol):
    """What every provider has, whatever its modes."""

    name: ClassVar[str]
    default_mode: ClassVar[BatchMode]
    is_local: ClassVar[bool]
    """Local providers are warmed up; a hosted one would be paid for it."""

    @property
    def price_list(self) -> str | None:
        """The provider's id in genai-prices; None where nothing is charged per token, or it is not known what."""

    @property
    def honours(self) -> frozenset[str]:
        """The generation keys that it can honour; any other that is set is refused before a run."""

    def check(self, params: GenerationParams) -> None:
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
            RequestError: the tokenizer cannot be had.
        """


@runtime_checkable
class StaticProvider(Protocol):
    """One call, many prompts."""

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Outcome]:
        """Return `n` outcomes per prompt, or one failure."""


@runtime_checkable
class ContinuousProvider(Protocol):
    """Many prompts, outcomes as they finish."""

    def generate_continuously(
        self, prompts: Iterable[Prompt], params: GenerationParams, size: int
    ) -> Iterator[Sequence[Outcome]]:
        """Keep `size` sequences alive and yield each prompt's outcomes when it is done."""


@runtime_checkable
class ConcurrentProvider(Protocol):
    """One prompt a call; the mode keeps `size` calls in flight.

    A provider whose connections live in an event loop is an asynchronous context manager too: the loop that calls
    `generate` enters it first.
    """

    async def generate(self, prompt: Prompt, params: GenerationParams) -> Sequence[Outcome]:
        """Return `n` outcomes, or one failure.

        Raises:
            CallError: the call has no answer; pacing decides what becomes of it.
        """


@runtime_checkable
class ListProvider(Protocol):
    """A service that takes a list of prompts in one request: static batches over HTTP."""

    def check_lists(self) -> None:
        """Raise ConfigError if requests, as they are configured, have no place for a list."""

    async def generate_list(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Outcome]:
        """Return `n` outcomes per prompt.

        Raises:
            CallError: the request as a whole has no answer.
        """


LIST_TIMEOUT_S = 30.0
"""How long a service may take to list its models."""


UNREACHABLE = "ConnectionError"
"""The kind of CallError that says: nobody answered at the service's address."""


UNSENDABLE = "UnsendablePrompt"
"""The kind of a failure that says: this text cannot be handed over."""


def no_utf8(error: UnicodeEncodeError) -> str:
    """Say why a prompt cannot be handed to a service or a tokenizer."""
    surrogate = f"U+{ord(error.object[error.start]):04X}"
    return f"the prompt has a lone surrogate ({surrogate}), which cannot be written as UTF-8: correct its text"


class CallError(Exception):
    """A call to a service has no answer.

    Args:
        kind: the SDK's or the service's name for it.
        message: what the service said; never a secret.
        retryable: asking again may help.
        fatal: no other request will be answered either, until a person changes something; `message` says what.
        throttled: the service asked for fewer requests, from everyone.
        unbilled: it is certain that nothing was generated: the service was not reached, or answered with an error.
            Of any other call the answer may have been generated, and be billed.
        refuses_lists: the service takes no list of prompts in one request, whatever the prompts.
        retry_after_s: how long the service asked to wait.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        retryable: bool = False,
        fatal: bool = False,
        throttled: bool = False,
        unbilled: bool = False,
        refuses_lists: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message = kind, message
        self.retryable, self.fatal, self.throttled = retryable, fatal, throttled
        self.unbilled, self.refuses_lists = unbilled, refuses_lists
        self.retry_after_s = retry_after_s

    def without(self, secrets: Collection[str]) -> "CallError":
        """Return the same error with these secrets out of its words."""
        return CallError(
            hidden(self.kind, secrets), hidden(self.message, secrets), retryable=self.retryable, fatal=self.fatal,
            throttled=self.throttled, unbilled=self.unbilled, refuses_lists=self.refuses_lists,
            retry_after_s=self.retry_after_s,
        )  # fmt: skip


@contextmanager
def hiding(secrets: Collection[str]) -> Iterator[None]:
    """Keep secrets out of every CallError: what a service says goes to disk, and some repeat a request's headers."""
    try:
        yield
    except CallError as error:
        raise error.without(secrets) from None


def quoted(words: str) -> str:
    """Return a service's own words as one line of 500 characters at most. No word is cut: it may be half a key."""
    return textwrap.shorten(words, 500, placeholder=" ...")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long a service asked to wait: in milliseconds (the finer header), in seconds, or until a date."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            asked_s = float(headers[name]) * unit_s
            if math.isfinite(asked_s) and asked_s >= 0:
                return asked_s
    with suppress(KeyError, ValueError, TypeError):
        until = parsedate_to_datetime(headers["retry-after"])
        return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRef:
    """What is needed to find a submitted job again, from any process."""

    provider: str
    job_id: str
    prompt_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """How far a job is."""

    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    completed: int
    total: int


@runtime_checkable
class JobProvider(Protocol):
    """Hand over a file, come back later."""

    def submit(self, prompts: Sequence[Prompt], params: GenerationParams) -> JobRef:
        """Hand over the prompts and return at once."""

    def poll(self, job: JobRef) -> JobStatus:
        """Return how far the job is."""

    def collect(self, job: JobRef) -> Iterator[Outcome]:
        """Yield the outcomes of a job that is done."""

    def cancel(self, job: JobRef) -> None:
        """Ask the service to stop the job; what is done can still be collected."""


_PROTOCOLS: Mapping[BatchMode, tuple[type, ...]] = {
    "static": (StaticProvider, ListProvider),
    "continuous": (ContinuousProvider,),
    "concurrent": (ConcurrentProvider,),
}


def modes_of(provider: type | Provider) -> tuple[BatchMode, ...]:
    """Return the batch modes that the provider can do: it has their protocol, and the runner has the mode."""
    kind = provider if isinstance(provider, type) else type(provider)
    return tuple(mode for mode, protocols in _PROTOCOLS.items() if issubclass(kind, protocols))


def provider_class(config: RunConfig) -> type[Provider]:
    """Import the class that `provider._target_` names; its place was checked with the configuration."""
    module_name, _, class_name = config.provider.target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ModuleNotFoundError, AttributeError):
        raise ConfigError(f"provider._target_={config.provider.target!r}: there is no such provider") from None
    if not (isinstance(found, type) and hasattr(found, "default_mode") and modes_of(found)):
        raise ConfigError(f"provider._target_={config.provider.target!r} is not a provider")
    return found


def build(config: RunConfig) -> Provider:
    """Construct the provider and check that it can do what the configuration asks. Loads and sends nothing.

    Raises:
        ConfigError: a setting, the batch mode or a generation key is not something this provider has.
    """
    kind = provider_class(config)
    known = [name for name in inspect.signature(kind).parameters if name != "model"]
    if "model" in config.provider.settings:
        raise ConfigError(f"{unknown_key('provider.model', known)}; the model is model.id")
    try:
        provider = kind(model=config.model, **config.provider.settings)  # type: ignore[call-arg]
    except ValidationError as error:
        raise ConfigError(explain(error, {"provider": known})) from None
    _check_mode(config.batch, provider)
    _check_honoured(config, provider)
    provider.check(config.params())
    return provider


def _check_mode(batch: BatchConfig, provider: Provider) -> None:
    has, mode = modes_of(provider), batch.mode or provider.default_mode
    if mode not in has:
        raise ConfigError(
            f"batch.mode={mode!r} is not something provider {provider.name!r} can do; it has: {', '.join(has)}"
        )
    if mode == "static" and isinstance(provider, ListProvider):
        provider.check_lists()
    if batch.size == "auto" and mode != "concurrent":
        raise ConfigError(f"batch.size='auto' is for batch.mode=concurrent only, not {mode!r}: set a whole number")


def _check_honoured(config: RunConfig, provider: Provider) -> None:
    unset = {"temperature": 0.0, "top_p": None, "top_k": None, "stop_sequences": (), "n": 1}
    for name, nothing in unset.items():
        value = getattr(config.generation, name)
        if value != nothing and name not in provider.honours:
            raise ConfigError(
                f"generation.{name}={value!r}: provider {provider.name!r} cannot honour {name}: "
                f"leave it at {nothing!r} or choose another provider"
            )
