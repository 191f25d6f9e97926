"""Outcomes as MLflow traces. Attribute names: OpenTelemetry semantic conventions for generative AI."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from runner.batching.modes import MODES
from runner.config.schema import RunConfig
from runner.record.folder import RunFolder
from runner.tracking.store import Store, storable
from runner.types import Completion, Outcome, Prompt

_SAMPLE = 16
_OUTCOME = "runner.outcome"
"""The trace's note of its prompt, choice and, from the second on, segment: by it an outcome is traced once."""
_OPERATION, _PROVIDER, _MODEL = "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"
_LONGEST_ID = 200
_TRACES_A_READ = 500
"""The most that a store gives at once."""


def log_traces(store: Store, run_id: str, folder: RunFolder, config: RunConfig) -> Iterator[str]:
    """Log outcomes as traces, those that are not there yet: all, or a sample spread evenly over the run.

    Yields the name of each after it was logged: a slow store takes its time for each.
    """
    import mlflow

    if config.tracking.traces == "off":
        return
    told = _told(store, run_id)
    chosen = list(_chosen(folder, config, told))
    wanted = {outcome.prompt_id for outcome in chosen}
    prompts = {prompt.id: prompt for prompt in folder.read_prompts() if prompt.id in wanted} if wanted else {}
    request = _request_attributes(config, folder.read_environment().get("provider", {}))
    for outcome in chosen:
        _log_trace(store.experiment_id, run_id, request, prompts[outcome.prompt_id], outcome)
        yield _name(outcome)
    mlflow.flush_trace_async_logging()


def _told(store: Store, run_id: str) -> set[str]:
    """Return the names of the outcomes that are traced already."""
    told, page = set[str](), None
    while page is None or page.token:
        page = store.client.search_traces(
            locations=[store.experiment_id],
            run_id=run_id,
            include_spans=False,
            max_results=_TRACES_A_READ,
            page_token=page and page.token,
        )
        told |= {name for trace in page if (name := trace.info.trace_metadata.get(_OUTCOME))}
    return told


def _chosen(folder: RunFolder, config: RunConfig, told: set[str]) -> Iterator[Outcome]:
    """Yield what is to be traced and is not: what of the sample has room, and what supersedes a traced failure."""
    sampled = config.tracking.traces == "sample"
    every = max(1, sum(1 for _ in folder.outcomes.read()) // _SAMPLE) if sampled else 1
    room = _SAMPLE - len(told) if sampled else math.inf
    for place, outcome in enumerate(folder.outcomes.read()):
        if _name(outcome) in told:
            continue
        if any(_name(replace(outcome, segment=segment)) in told for segment in range(outcome.segment)):
            yield outcome
        elif place % every == 0 and room > 0:
            room -= 1
            yield outcome


def _name(outcome: Outcome) -> str:
    again = f"@{outcome.segment}" if outcome.segment else ""
    return f"{storable(outcome.prompt_id)[:_LONGEST_ID]}/{outcome.choice}{again}"


def _log_trace(experiment_id: str, run_id: str, request: Mapping[str, Any], prompt: Prompt, outcome: Outcome) -> None:
    """Log one outcome after the fact, with its own times."""
    import mlflow

    start_ns = int(outcome.timing.started_at.timestamp() * 1e9)
    span = mlflow.start_span_no_context(
        name=f"{request[_OPERATION]} {request[_MODEL]}",
        span_type="CHAT_MODEL",
        inputs={"messages": [{"role": turn.role, "content": storable(turn.content)} for turn in prompt.messages]},
        attributes={**request, **_response_attributes(outcome)},
        metadata={"mlflow.sourceRun": run_id, _OUTCOME: _name(outcome)},
        experiment_id=experiment_id,
        start_time_ns=start_ns,
    )
    end_ns = start_ns + int(outcome.timing.latency_s * 1e9)
    if isinstance(outcome, Completion):
        message = {"role": "assistant", "content": storable(outcome.text)}
        choice = {"index": outcome.choice, "finish_reason": outcome.finish_reason, "message": message}
        span.end(outputs={"choices": [choice]}, end_time_ns=end_ns)
    else:
        said = storable(f"{outcome.error.type}: {outcome.error.message}")
        span.end(outputs={"error": said}, status="ERROR", end_time_ns=end_ns)


def _request_attributes(config: RunConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request carried; `facts` are the provider's own. A static batch's seed is not the run's."""
    sent = {name: getattr(config.generation, name) for name in ("max_tokens", "temperature", "top_p", "top_k")}
    attributes = {
        _OPERATION: facts.get(_OPERATION, "chat"),
        _PROVIDER: facts.get(_PROVIDER, config.provider.name),
        _MODEL: config.model.id,
        "gen_ai.request.choice.count": config.generation.n,
        "gen_ai.request.stop_sequences": list(config.generation.stop_sequences),
        "batch.mode": config.batch.mode,
        "batch.size": config.batch.size,
    }
    if facts.get("sends_seed") and config.batch.mode and not MODES[config.batch.mode].batch_is_call:
        attributes["gen_ai.request.seed"] = config.seed
    return attributes | {f"gen_ai.request.{name}": value for name, value in sent.items() if value is not None}


def _response_attributes(outcome: Outcome) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "prompt_id": storable(outcome.prompt_id),
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
