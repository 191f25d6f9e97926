"""The attributes of a trace's span, by the names of OpenTelemetry's conventions for generative AI, and by MLflow's."""

from collections.abc import Mapping
from typing import Any

from runner.batching.modes import MODES
from runner.config.schema import RunConfig
from runner.pricing import Price
from runner.tracking.store import storable
from runner.types import Completion, Outcome, Prompt, Usage

OPERATION, MODEL = "gen_ai.operation.name", "gen_ai.request.model"
_PROVIDER = "gen_ai.provider.name"
_FINISH_REASONS = {"tool_calls": "tool_call"}
"""The finish reasons that the conventions' messages name otherwise."""


def request_attributes(config: RunConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes of every request; the provider reported the `facts`. A static batch's seed is not the run's."""
    params = {name: getattr(config.generation, name) for name in ("max_tokens", "temperature", "top_p", "top_k")}
    attributes = {
        OPERATION: facts.get(OPERATION, "chat"),
        _PROVIDER: facts.get(_PROVIDER, config.provider.name),
        MODEL: config.model.id,
        "gen_ai.request.choice.count": config.generation.n,
        "gen_ai.request.stop_sequences": list(config.generation.stop_sequences),
        "batch.mode": config.batch.mode,
        "batch.size": config.batch.size,
    }
    if facts.get("sends_seed") and config.batch.mode and not MODES[config.batch.mode].batch_is_call:
        attributes["gen_ai.request.seed"] = config.seed
    return attributes | {f"gen_ai.request.{name}": value for name, value in params.items() if value is not None}


def outcome_attributes(prompt: Prompt, outcome: Outcome, price: Price | None) -> dict[str, Any]:
    """Return the attributes of one prompt and what came of it.

    Args:
        prompt: the outcome's.
        outcome: a completion or a failure.
        price: what the run's tokens cost; None where that is not known.
    """
    attributes: dict[str, Any] = {
        "prompt_id": storable(outcome.prompt_id),
        "batch": outcome.batch,
        "attempts": outcome.attempts,
        "gen_ai.input.messages": [_message(turn.role, turn.content) for turn in prompt.messages],
    }
    if outcome.timing.time_to_first_token_s is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = outcome.timing.time_to_first_token_s
    if isinstance(outcome, Completion):
        return attributes | _completion_attributes(outcome) | _cost(outcome, price)
    return attributes | {"error.type": outcome.error.type}


def _message(role: str, text: str) -> dict[str, Any]:
    """Return a message in the form of the conventions' gen-ai-input-messages.json and gen-ai-output-messages.json."""
    return {"role": role, "parts": [{"type": "text", "content": storable(text)}]}


def _completion_attributes(outcome: Completion) -> dict[str, Any]:
    reason = _FINISH_REASONS.get(outcome.finish_reason, outcome.finish_reason)
    attributes = {
        "gen_ai.output.messages": [{**_message("assistant", outcome.text), "finish_reason": reason}],
        "gen_ai.response.model": outcome.model,
        "gen_ai.response.finish_reasons": [outcome.finish_reason],
    }
    if outcome.system_fingerprint is not None:
        attributes["openai.response.system_fingerprint"] = outcome.system_fingerprint
    return attributes | (_usage_attributes(outcome.usage) if outcome.usage is not None else {})


def _usage_attributes(usage: Usage) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_written_tokens,
        "mlflow.chat.tokenUsage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "cache_read_input_tokens": usage.cached_input_tokens,
            "cache_creation_input_tokens": usage.cache_written_tokens,
        },
    }
    if usage.reasoning_tokens is not None:
        attributes["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    return attributes


def _cost(outcome: Completion, price: Price | None) -> dict[str, Any]:
    """Return the cost in US dollars as MLflow sums it.

    Where the price is not known, or is one of hours, or the service counted nothing, the attribute of the model's name
    is empty: the store looks up a span without cost by that name in a price list of its own, and takes an empty cost
    for 0. `gen_ai.response.model` keeps the name.
    """
    if price is None or price.usd_per_hour or outcome.usage is None:
        return {"mlflow.llm.model": ""}
    total_usd = price.outcome_usd(outcome)
    output_usd = price.usage_usd(outcome.usage, with_input=False)
    cost = {"input_cost": total_usd - output_usd, "output_cost": output_usd, "total_cost": total_usd}
    return {"mlflow.llm.cost": cost}
