"""Outcomes as MLflow traces. Attribute names: OpenTelemetry semantic conventions for generative AI."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from runner.config import RunConfig
from runner.records import Completion, Outcome, Prompt

_SAMPLE = 16


def log_traces(
    experiment_id: str,
    run_id: str,
    config: RunConfig,
    prompts: Sequence[Prompt],
    outcomes: Iterable[Outcome],
    count: int,
) -> None:
    """Log outcomes as traces: all of them, or a sample spread evenly over the `count` that there are."""
    import mlflow

    if config.tracking.traces == "off" or count == 0:
        return
    every = 1 if config.tracking.traces == "all" else max(1, count // _SAMPLE)
    by_id = {prompt.id: prompt for prompt in prompts}
    chosen = islice(outcomes, 0, None if every == 1 else every * _SAMPLE, every)
    for outcome in chosen:
        _log_trace(experiment_id, run_id, config, by_id[outcome.prompt_id], outcome)
    mlflow.flush_trace_async_logging()


def _log_trace(experiment_id: str, run_id: str, config: RunConfig, prompt: Prompt, outcome: Outcome) -> None:
    """Log one outcome after the fact, with its own times."""
    import mlflow

    start_ns = int(outcome.timing.started_at.timestamp() * 1e9)
    span = mlflow.start_span_no_context(
        name=f"chat {config.model.id}",
        span_type="CHAT_MODEL",
        inputs={"messages": [{"role": message.role, "content": message.content} for message in prompt.messages]},
        attributes=_request_attributes(config) | _response_attributes(outcome),
        metadata={"mlflow.sourceRun": run_id},
        experiment_id=experiment_id,
        start_time_ns=start_ns,
    )
    end_ns = start_ns + int(outcome.timing.latency_s * 1e9)
    if isinstance(outcome, Completion):
        message = {"role": "assistant", "content": outcome.text}
        choice = {"index": outcome.choice, "finish_reason": outcome.finish_reason, "message": message}
        span.end(outputs={"choices": [choice]}, end_time_ns=end_ns)
    else:
        span.end(
            outputs={"error": f"{outcome.error.type}: {outcome.error.message}"},
            status="ERROR",
            end_time_ns=end_ns,
        )


def _request_attributes(config: RunConfig) -> dict[str, Any]:
    sent = {name: getattr(config.generation, name) for name in ("max_tokens", "temperature", "top_p", "top_k")}
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": config.provider.name,
        "gen_ai.request.model": config.model.id,
        "gen_ai.request.seed": config.seed,
        "gen_ai.request.choice.count": config.generation.n,
        "gen_ai.request.stop_sequences": list(config.generation.stop_sequences),
        "batch.mode": config.batch.mode,
        "batch.size": config.batch.size,
    }
    return attributes | {f"gen_ai.request.{name}": value for name, value in sent.items() if value is not None}


def _response_attributes(outcome: Outcome) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "prompt_id": outcome.prompt_id,
        "batch": outcome.batch,
        "attempts": outcome.attempts,
    }
    if outcome.timing.time_to_first_token_s is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = outcome.timing.time_to_first_token_s
    if isinstance(outcome, Completion):
        usage = outcome.usage
        attributes |= {
            "gen_ai.response.model": outcome.model,
            "gen_ai.response.finish_reasons": [outcome.finish_reason],
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "mlflow.chat.tokenUsage": {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
            },
        }
    else:
        attributes["error.type"] = outcome.error.type
    return attributes
