"""The note on a run's page in the MLflow UI: what was run and what came out, in a few lines of Markdown."""

from runner.batching.modes import MODES
from runner.config.schema import RunConfig
from runner.metrics.definitions import format_metric
from runner.record.manifest import RunManifest, Summary
from runner.text import escape_markdown

_NOTED_METRICS = (
    *("completed_prompts", "failed_prompts", "duration_s", "output_tokens_per_s", "prompts_per_s", "latency_p50_s"),
    *("latency_p95_s", "time_to_first_token_p50_s", "prompt_padding_ratio", "tail_wait_ratio", "cost_usd"),
    "cost_at_most_usd",
)


def run_note(config: RunConfig, manifest: RunManifest, summary: Summary) -> str:
    """Return the note of a run that has ended."""
    prompts, batch, generation = manifest.prompts, config.batch, config.generation
    unit = f" ({MODES[batch.mode].size_unit})" if batch.mode else ""
    sampling = "greedy" if generation.temperature == 0 else f"temperature {generation.temperature}, seed {config.seed}"
    rows = "\n".join(
        f"| {name} | {format_metric(name, summary.metrics[name]).strip()} |"
        for name in _NOTED_METRICS
        if name in summary.metrics
    )
    size = f"`batch.size={batch.size}`{unit}"
    error = f"\n\nThe run ended early: {escape_markdown(summary.error['message'])}" if summary.error else ""
    return (
        f"**{escape_markdown(config.model.id)}** on {config.provider.name}, mode {batch.mode}, {size}: "
        f"{prompts['count']} prompts of {escape_markdown(prompts['name'])}, {sampling}, up to "
        f"{generation.max_tokens} new tokens.{error}\n\n| metric | value |\n|---|--:|\n{rows}"
    )
