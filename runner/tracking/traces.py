"""Outcomes as MLflow traces: which have one, and one more for each that has none."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from runner.config.schema import RunConfig
from runner.pricing import Price, recorded_price
from runner.record.folder import RunFolder
from runner.record.prompts import PackedPrompts
from runner.tracking.attributes import MODEL, OPERATION, outcome_attributes, request_attributes
from runner.tracking.store import StoreRun, storable
from runner.types import Completion, Outcome, Prompt

MAX_SAMPLED_TRACES = 16
"""Traces of a run with `tracking.traces=sample`."""
_OUTCOME = "runner.outcome"
"""The trace's metadata that name its outcome, so that an outcome is traced once."""
_MAX_ID = 200
_TRACES_PER_PAGE = 100
"""MLflow's own default."""


def trace_name(outcome: Outcome, segment: int | None = None) -> str:
    """Return prompt and choice of an outcome and, from the second on, its segment (or the given one)."""
    number = outcome.segment if segment is None else segment
    return f"{storable(outcome.prompt_id)[:_MAX_ID]}/{outcome.choice}{f'@{number}' if number else ''}"


def retries_traced(outcome: Outcome, traced: Set[str]) -> bool:
    """Return whether an outcome has no trace, and supersedes one that has."""
    if not outcome.segment or trace_name(outcome) in traced:
        return False
    return any(trace_name(outcome, segment) in traced for segment in range(outcome.segment))


def read_traced(run: StoreRun) -> set[str]:
    """Return the names of the outcomes that have a trace."""
    names, page = set[str](), None
    while page is None or page.token:
        page = run.store.client.search_traces(
            locations=[run.store.experiment_id],
            run_id=run.run_id,
            include_spans=False,
            max_results=_TRACES_PER_PAGE,
            page_token=page and page.token,
        )
        names |= {name for trace in page if (name := trace.info.trace_metadata.get(_OUTCOME))}
    return names


def log_traces(
    run: StoreRun,
    config: RunConfig,
    folder: RunFolder,
    traces: Iterator[tuple[Prompt, Outcome]],
    on_logged: Callable[[], object],
) -> None:
    """Log outcomes as traces.

    Args:
        run: the MLflow run.
        config: the run's.
        folder: the run's.
        traces: what to log: prompts with their outcomes.
        on_logged: called after each trace: a slow store needs time for every one.
    """
    import mlflow

    environment = folder.read_environment()
    request, price = request_attributes(config, environment.get("provider", {})), recorded_price(environment)
    for prompt, outcome in traces:
        _log_trace(run, request, prompt, outcome, price)
        on_logged()
    mlflow.flush_trace_async_logging()


def untraced(
    config: RunConfig, folder: RunFolder, prompts: PackedPrompts, sample: Sequence[Outcome], traced: Set[str]
) -> Iterator[tuple[Prompt, Outcome]]:
    """Yield what has no trace yet: of the sample, or with `tracking.traces=all` of the folder, which is read anew."""
    outcomes: Iterator[Outcome] = iter(sample)
    wanted = {outcome.prompt_id for outcome in sample}
    is_all = config.tracking.traces == "all"
    if is_all:
        outcomes = (outcome for outcome in folder.outcomes.read() if trace_name(outcome) not in traced)
    positions = {prompt.id: position for position, prompt in enumerate(prompts) if is_all or prompt.id in wanted}
    for outcome in outcomes:
        yield prompts[positions[outcome.prompt_id]], outcome


def _log_trace(
    run: StoreRun, request: Mapping[str, Any], prompt: Prompt, outcome: Outcome, price: Price | None
) -> None:
    """Log one outcome after the fact, with its own times."""
    import mlflow

    start_ns = int(outcome.timing.started_at.timestamp() * 1e9)
    span = mlflow.start_span_no_context(
        name=f"{request[OPERATION]} {request[MODEL]}",
        span_type="CHAT_MODEL",
        inputs={"messages": [{"role": turn.role, "content": storable(turn.content)} for turn in prompt.messages]},
        attributes={**request, **outcome_attributes(prompt, outcome, price)},
        metadata={"mlflow.sourceRun": run.run_id, _OUTCOME: trace_name(outcome)},
        experiment_id=run.store.experiment_id,
        start_time_ns=start_ns,
    )
    end_ns = start_ns + int(outcome.timing.elapsed_s * 1e9)
    if isinstance(outcome, Completion):
        message = {"role": "assistant", "content": storable(outcome.text)}
        choice = {"index": outcome.choice, "finish_reason": outcome.finish_reason, "message": message}
        span.end(outputs={"choices": [choice]}, end_time_ns=end_ns)
    else:
        error = storable(f"{outcome.error.type}: {outcome.error.message}")
        span.end(outputs={"error": error}, status="ERROR", end_time_ns=end_ns)
