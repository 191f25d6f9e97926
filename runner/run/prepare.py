"""Checks a configuration completely, and builds what its run needs. Loads and sends nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.batching.base import Mode
from runner.batching.job_files import check_job_sizes, job_size
from runner.batching.modes import MODES, modes_of
from runner.config.schema import RunConfig
from runner.config.waits import Waits
from runner.dispatch.adaptive_concurrency import AdaptiveConcurrency
from runner.dispatch.budget import Budget
from runner.dispatch.gate import RequestGate
from runner.dispatch.limited_provider import LimitedProvider
from runner.dispatch.open_files import max_connections
from runner.dispatch.stop import StopRequest
from runner.errors import ConfigError
from runner.pricing import Price, find_price
from runner.providers.factory import build
from runner.providers.protocols import Checkable, JobProvider, Provider
from runner.record.folder import RunFolder
from runner.record.prompts import PackedPrompts
from runner.tracking.uri import check_store, create_store_folder

_INITIAL_CONCURRENCY = 4
"""Requests in flight from which batch.size=auto starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """How a configuration's mode reaches its provider.

    Attributes:
        provider: generates.
        mode: how prompts reach the provider.
        callee: what the mode calls, inside `with callee:`: `limited`, or the provider itself.
        limited: the provider with its limits; None where the mode sends no requests.
        price: what tokens cost; None where the price is not known.
        budget: what may still be spent; without a limit it has room for every request.
        concurrency: finds how many requests may be in flight; None where `batch.size` is a number.
        stop: the run's request to stop sending.
    """

    provider: Provider
    mode: Mode[Any]
    callee: Provider | LimitedProvider
    limited: LimitedProvider | None
    price: Price | None
    budget: Budget
    concurrency: AdaptiveConcurrency | None
    stop: StopRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """A run that can begin: its configuration and its prompts were checked.

    Attributes:
        accepts_changes: whether a resumed run goes on at another address, or with another device or model revision.
        overrides: the values of `config` that a resume changed, by key.
        leaves_jobs: whether batch jobs are left at the service as with `batch.detach`.
    """

    config: RunConfig
    prompts: PackedPrompts
    calls: Calls
    folder: RunFolder
    waits: Waits
    accepts_changes: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    leaves_jobs: bool = False


def prepare(config: RunConfig, prompts: PackedPrompts, folder: RunFolder, waits: Waits) -> PreparedRun:
    """Check a configuration and build what its run needs.

    Raises:
        ConfigError: the provider does not support the configuration, a limit has no meaning, or the store cannot be
            written.
    """
    calls = prepare_calls(config, waits)
    check_count(config, calls, len(prompts))
    check_store(config.tracking.uri)
    create_store_folder(config.tracking.uri)
    return PreparedRun(
        config=config.with_mode(calls.mode.name), prompts=prompts, calls=calls, folder=folder, waits=waits
    )


def check(config: RunConfig, prompts: int, waits: Waits) -> None:
    """Check everything that is known of a configuration before its run begins. Makes and sends nothing.

    Args:
        config: the configuration.
        prompts: how many prompts it has.
        waits: how long to wait for people and services.

    Raises:
        UsageError: as for `prepare` and `check_provider`.
    """
    calls = prepare_calls(config, waits)
    check_count(config, calls, prompts)
    check_provider(calls.provider)
    check_store(config.tracking.uri)


def check_count(config: RunConfig, calls: Calls, prompts: int) -> None:
    """Refuse a number of prompts that the mode cannot hand over.

    Raises:
        ConfigError: a batch job would be too small.
    """
    if calls.mode.is_job and isinstance(calls.provider, JobProvider):
        limits = calls.provider.job_limits()
        check_job_sizes(prompts, job_size(config.batch, limits), limits)


def check_provider(provider: Provider) -> None:
    """Check that the provider has what it needs to generate, before anything is made.

    Raises:
        UsageError: a package, a key or an address is missing.
    """
    if isinstance(provider, Checkable):
        provider.check()


def prepare_calls(config: RunConfig, waits: Waits) -> Calls:
    """Build the provider and what limits its requests. A plan needs no key: `check_provider` looks for it.

    Raises:
        ConfigError: the provider does not support the configuration, or a limit has no meaning.
    """
    provider = build(config)
    mode = _mode(config, provider)
    stop, price = StopRequest(), _price(config, mode, provider)
    sends_requests = mode.sends_requests_of(type(provider))
    if not sends_requests:
        _refuse_request_limits(config, mode)
    budget = Budget(config.limits.max_cost_usd, price)
    concurrency = _concurrency(config, mode, provider)
    limited = None
    if sends_requests:
        limited = LimitedProvider(
            provider, config.model.id, config.limits, RequestGate(config.limits, budget, concurrency, stop), stop,
            max_throttled_s=waits.throttled_s,
        )  # fmt: skip
    return Calls(
        provider=provider, mode=mode, callee=limited or provider, limited=limited, price=price, budget=budget,
        concurrency=concurrency, stop=stop,
    )  # fmt: skip


def _price(config: RunConfig, mode: Mode[Any], provider: Provider) -> Price | None:
    """Return what tokens cost in this mode; None where the price is not known."""
    price = find_price(config.model, provider.price_catalog)
    set_ratio = config.model.price.batch_discount if config.model.price else None
    if not (mode.is_job and isinstance(provider, JobProvider)):
        if set_ratio is not None:
            raise ConfigError(
                f"model.price.batch_discount={set_ratio}: mode {mode.name!r} of provider {provider.name!r} has no "
                "batch jobs: leave it unset, or set batch.mode=job"
            )
        return price
    discount = provider.job_discount()
    if price is None or price.usd_per_hour:
        return price
    if set_ratio is not None:
        return price.discounted(set_ratio, "model.price.batch_discount")
    return price.discounted(discount.ratio, discount.source)


def _mode(config: RunConfig, provider: Provider) -> Mode[Any]:
    """Return the mode, which is the provider's default unless it is configured; refuse one that cannot work."""
    name, supported = config.batch.mode or provider.default_mode, modes_of(type(provider))
    if name not in supported:
        raise ConfigError(
            f"batch.mode={name!r} is not something provider {provider.name!r} can do; it has: {', '.join(supported)}"
        )
    mode = MODES[name]
    mode.validate(provider)
    if isinstance(provider, JobProvider) and mode.is_job:
        provider.validate_jobs(config.params())
    if config.batch.detach and not mode.is_job:
        raise ConfigError(
            f"batch.detach=true: mode {name!r} has no jobs to leave: set batch.mode=job, or leave it false"
        )
    if config.batch.size == "auto" and not (mode.size_is_requests or mode.is_job):
        sized = " or ".join(other.name for other in MODES.values() if other.size_is_requests or other.is_job)
        raise ConfigError(f"batch.size='auto' is for batch.mode={sized} only, not {name!r}: set a whole number")
    return mode


def _refuse_request_limits(config: RunConfig, mode: Mode[Any]) -> None:
    for name in ("requests_per_minute", "tokens_per_minute", "max_cost_usd"):
        if mode.is_job and name == "max_cost_usd":
            continue  # checked before a job is uploaded
        if (value := getattr(config.limits, name)) is not None:
            raise ConfigError(
                f"limits.{name}={value}: mode {mode.name!r} of provider {config.provider.name!r} sends no "
                "requests: leave it unset"
            )


def _concurrency(config: RunConfig, mode: Mode[Any], provider: Provider) -> AdaptiveConcurrency | None:
    max_requests = config.batch.count
    if mode.size_is_requests and not provider.is_local:
        max_requests = max_connections(config.batch)
    is_found = config.batch.size == "auto" and mode.size_is_requests
    return AdaptiveConcurrency(_INITIAL_CONCURRENCY, max_requests) if is_found else None
