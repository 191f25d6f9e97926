"""`python -m runner.plan [overrides]`: prints what a run would do and cost. Sends nothing and needs no key."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runner.batching.job_files import count_jobs, custom_id, job_size
from runner.cli import common, terminal
from runner.config.schema import GenerationParams, RunConfig
from runner.config.waits import Waits
from runner.dispatch.call import estimate_tokens
from runner.pricing import Price
from runner.prompts import load_prompts
from runner.providers.errors import CallError
from runner.providers.protocols import JobProvider, Provider, TokenCounter
from runner.run.prepare import check_count, prepare_calls
from runner.types import Prompt, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do. The fields are those of --json.

    Attributes:
        input_tokens_are: "counted", or "estimated from characters".
        most_output_tokens: if every answer had `generation.max_tokens`.
        least_cost_usd: if every answer were empty; None where the price is unknown.
        most_cost_usd: if every answer had `generation.max_tokens`; None where the price is unknown.
        usd_per_hour: the price of own hardware, whose cost follows from the time; None where tokens are paid for.
        max_cost_usd: the configured limit.
        most_time_s: what the limits per minute require for that output; None without such limits.
        jobs, job_bytes: batch jobs, and the bytes of their files together; None in other modes.
        job_window: how long the service takes for a job, in its words.
    """

    provider: str
    is_local: bool
    model: str
    mode: str
    prompts: int
    requests: int
    input_tokens: int
    input_tokens_are: str
    most_output_tokens: int
    price: str | None
    least_cost_usd: float | None
    most_cost_usd: float | None
    usd_per_hour: float | None
    max_cost_usd: float | None
    most_time_s: float | None
    jobs: int | None
    job_bytes: int | None
    job_window: str | None


def plan(config: RunConfig) -> Plan:
    """Return what a run of this configuration would do.

    Raises:
        UsageError: the run would be refused, for the same reason and with the same message.
    """
    prompts = load_prompts(config.prompts).prompts
    calls = prepare_calls(config, Waits())
    check_count(config, calls, len(prompts))
    provider, mode, price = calls.provider, calls.mode, calls.price
    token_price = None if price is None or price.usd_per_hour else price
    prompt_tokens, method = _prompt_tokens(provider, prompts)
    input_tokens, answers_tokens = sum(prompt_tokens), config.generation.n * config.generation.max_tokens
    most_output = len(prompts) * answers_tokens
    requests = math.ceil(len(prompts) / config.batch.count) if mode.batch_is_call else len(prompts)
    return Plan(
        provider=config.provider.name,
        is_local=provider.is_local,
        model=config.model.id,
        mode=f"{mode.name}, batch.size={config.batch.size}",
        prompts=len(prompts),
        requests=requests,
        input_tokens=input_tokens,
        input_tokens_are=method,
        most_output_tokens=most_output,
        price=price.source if price else None,
        least_cost_usd=_cost_usd(token_price, prompt_tokens, 0) if token_price else None,
        most_cost_usd=_cost_usd(token_price, prompt_tokens, answers_tokens) if token_price else None,
        usd_per_hour=price.usd_per_hour if price and price.usd_per_hour else None,
        max_cost_usd=config.limits.max_cost_usd,
        most_time_s=_time_under_limits(config, requests, input_tokens + most_output),
        **_jobs(config, provider, prompts, is_job=mode.is_job),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the plan of the command line's configuration."""
    common.run_query("plan", str(__doc__), arguments, _print)


def _print(config: RunConfig, as_json: bool) -> None:
    planned = plan(config)
    if as_json:
        terminal.print_json(asdict(planned))
    else:
        terminal.print_table("Plan: nothing was sent", ("what", "value"), _rows(planned), text_columns=2)


def _jobs(config: RunConfig, provider: Provider, prompts: Sequence[Prompt], *, is_job: bool) -> dict[str, Any]:
    """Return the fields of batch jobs."""
    if not (is_job and isinstance(provider, JobProvider)):
        return {"jobs": None, "job_bytes": None, "job_window": None}
    limits, params = provider.job_limits(), config.params()
    sizes = [_line_bytes(provider, prompt, params) for prompt in prompts]
    return {
        "jobs": count_jobs(sizes, job_size(config.batch, limits), limits),
        "job_bytes": sum(sizes),
        "job_window": limits.window,
    }


def _line_bytes(provider: JobProvider, prompt: Prompt, params: GenerationParams) -> int:
    try:
        return len(provider.job_line(custom_id(prompt), prompt, params)) + 1
    except CallError:  # its text cannot be sent: the prompt will fail
        return 0


def _prompt_tokens(provider: Provider, prompts: Sequence[Prompt]) -> tuple[Sequence[int], str]:
    """Return the tokens of each prompt, and how they are known."""
    if isinstance(provider, TokenCounter):
        return [*map(provider.count_tokens, prompts)], "counted"
    return [*map(estimate_tokens, prompts)], "estimated from characters"


def _cost_usd(price: Price, prompt_tokens: Sequence[int], answers_tokens: int) -> float:
    """Return the cost of these prompts, each at the rates of its length, with so many output tokens for each."""
    return sum(
        count * price.usage_usd(Usage(input_tokens=tokens, output_tokens=answers_tokens))
        for tokens, count in Counter(prompt_tokens).items()
    )


def _time_under_limits(config: RunConfig, requests: int, tokens: int) -> float | None:
    limits = config.limits
    times = [
        60 * amount / limit
        for amount, limit in ((requests, limits.requests_per_minute), (tokens, limits.tokens_per_minute))
        if limit is not None
    ]
    return max(times, default=None)


def _rows(plan: Plan) -> list[tuple[str, str]]:
    no_price = "nothing per token: the model runs on this machine" if plan.is_local else "unknown: set model.price"
    time = "no limit is set" if plan.most_time_s is None else f"up to {plan.most_time_s:,.0f} s"
    return [
        ("provider, model", f"{plan.provider}, {plan.model}"),
        ("mode", plan.mode),
        ("prompts, requests", f"{plan.prompts:,}, {plan.requests:,}"),
        *([("batch jobs", _job_words(plan))] if plan.jobs is not None else []),
        ("input tokens", f"{plan.input_tokens:,} ({plan.input_tokens_are})"),
        ("output tokens", f"up to {plan.most_output_tokens:,}"),
        ("cost", _cost(plan) or no_price),
        ("price", plan.price or no_price),
        *([("budget", _budget(plan))] if plan.max_cost_usd is not None else []),
        ("time under the limits", time),
    ]


def _job_words(plan: Plan) -> str:
    return f"{plan.jobs:,} with {plan.job_bytes:,} bytes; the service takes {plan.job_window}"


def _cost(plan: Plan) -> str | None:
    """Return the cost of tokens, or of the hardware's time as far as it is known; None without a price."""
    if plan.usd_per_hour is None:
        return None if plan.most_cost_usd is None else f"${plan.least_cost_usd:,.4f} to ${plan.most_cost_usd:,.4f}"
    rate = f"${plan.usd_per_hour:,.4f} per hour of generation"
    if plan.most_time_s is None:
        return f"{rate}; how long it takes, only a run knows"
    return f"{rate}: ${plan.usd_per_hour * plan.most_time_s / 3600:,.4f} for the time under the limits"


def _budget(plan: Plan) -> str:
    limit = f"limits.max_cost_usd={plan.max_cost_usd}"
    if plan.max_cost_usd is None or (plan.most_cost_usd or 0.0) <= plan.max_cost_usd:
        return f"{limit}: enough, by these figures"
    modal = "will" if (plan.least_cost_usd or 0.0) > plan.max_cost_usd else "may"
    return f"{limit}: the run {modal} stop before its end"
