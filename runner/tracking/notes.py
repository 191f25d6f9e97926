"""What a run's page in the MLflow UI says first: what was run and what came out, in a few lines of Markdown."""

from runner.batching.modes import MODES
from runner.config.schema import RunConfig
from runner.metrics import format_metric
from runner.record.manifest import RunManifest, Summary
from runner.text import escape_markdown

_SHOWN = (
    *("completed_prompts", "failed_prompts", "duration_s", "output_tokens_per_s", "prompts_per_s", "latency_p50_s"),
    *("latency_p95_s", "time_to_first_token_p50_s", "prompt_padding_ratio", "tail_wait_ratio", "cost_usd"),
)


def run_note(config: RunConfig, origin: RunManifest, summary: Summary) -> str:
    """Return the note of a run that has ended."""
    count, batch, generation = origin.prompts["count"], config.batch, config.generation
    means = f" ({MODES[batch.mode].size_unit})" if batch.mode else ""
    how = "greedy" if generation.temperature == 0 else f"temperature {generation.temperature}, seed {config.seed}"
    rows = "\n".join(
        f"| {name} | {format_metric(name, summary.metrics[name]).strip()} |"
        for name in _SHOWN
        if name in summary.metrics
    )
    why = f"\n\nIt ended early: {escape_markdown(summary.error['message'])}" if summary.error else ""
    return (
        f"**{escape_markdown(config.model.id)}** on {config.provider.name}, mode {batch.mode}, `batch.size={batch.size}`"
        f"{means}: {count} prompts of {escape_markdown(origin.prompts['name'])}, {how}, up to "
        f"{generation.max_tokens} new tokens.{why}\n\n| metric | value |\n|---|--:|\n{rows}"
    )
