"""A comparison as plain data: comparison.json, and the output of `--json`. A figure without data is absent."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from runner.comparison.compare import Comparison
from runner.comparison.divergence import Divergence
from runner.comparison.first_difference import FirstDifferenceStats, Source
from runner.comparison.load import Run
from runner.comparison.noise_floor import NoiseFloor
from runner.comparison.pairing import ComparedPair
from runner.comparison.present.explained import explanation_data
from runner.comparison.served import Served
from runner.comparison.speed import Row, Speedup


def as_data(comparison: Comparison) -> dict[str, Any]:
    """Return the whole comparison without the texts, which the run folders have."""
    metrics = comparison.metrics
    return {
        "runs": [
            _run(run, metrics.get(run.folder.path, {}), comparison.served.get(run.label)) for run in comparison.runs
        ],
        "rows": [_row(row) for row in comparison.rows],
        "compared": [_compared(compared) for compared in comparison.compared],
        "notes": [asdict(note) for note in comparison.notes],
    }


def _run(run: Run, added: Mapping[str, float], served: Served | None) -> dict[str, Any]:
    return {
        "label": run.label,
        "folder": str(run.folder.path),
        "status": run.status,
        "mlflow_run_id": run.summary.mlflow_run_id if run.summary else None,
        "prompts_sha256": run.prompts_sha256,
        "settings": dict(run.settings),
        "metrics": {**run.metrics, **added},
        **({"served": _served(served)} if served and served.prompts else {}),
        **({"environment_changes": list(run.environment_changes)} if run.environment_changes else {}),
    }


def _served(served: Served) -> dict[str, Any]:
    """Return how a run's answers were served, as far as it is known."""
    share = served.overlapping_share
    return {
        "prompts": served.prompts,
        **({"overlapping_share": share} if share is not None else {}),
        **({"system_fingerprints": list(served.system_fingerprints)} if served.system_fingerprints else {}),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "runs": [run.label for run in row.runs],
        "status": row.status,
        "figures": {name: asdict(spread) for name, spread in row.figures.items()},
        "reference": row.reference,
        **({"speedup": _speedup(row.speedup)} if row.speedup else {}),
        "pareto_front": row.on_front,
    }


def _speedup(speedup: Speedup) -> dict[str, Any]:
    fields = {
        "ratio": speedup.ratio,
        **(asdict(speedup.estimate) if speedup.estimate else {}),
        "corrected_p_value": speedup.corrected_p,
        "inside_noise": speedup.in_noise,
        "output_tokens_ratio": speedup.output_tokens_ratio,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _compared(compared: ComparedPair) -> dict[str, Any]:
    pair = compared.pair
    return {
        "run": pair.run.label,
        "reference": pair.reference.label,
        "kind": pair.kind,
        **({"reason": pair.reason} if pair.reason else {}),
        "asked_differs": [asdict(difference) for difference in pair.request_differences],
        "settings_differ": [asdict(difference) for difference in pair.setting_differences],
        **({"prompts_in_common": len(pair.common_prompt_ids)} if pair.common_prompt_ids is not None else {}),
        **({"texts": _divergence(compared.divergence)} if compared.divergence else {}),
        **({"noise_floor": _noise_floor(compared.noise_floor)} if compared.noise_floor else {}),
        **({"explanation": explanation_data(compared.explanation)} if compared.explanation else {}),
    }


def _noise_floor(floor: NoiseFloor) -> dict[str, Any]:
    interval = floor.interval
    return {
        "repeat": floor.repeat,
        "prompts": floor.prompts,
        "run_matches": floor.run_matches,
        "repeat_matches": floor.repeat_matches,
        "repeat_match_ratio": floor.repeat_matches / floor.prompts,
        "repeat_match_ratio_low": interval.low,
        "repeat_match_ratio_high": interval.high,
        "p_value": floor.p_value,
        "corrected_p_value": floor.corrected_p,
    }


def _divergence(divergence: Divergence) -> dict[str, Any]:
    figures = {
        "compared": divergence.compared,
        "equal": divergence.equal,
        "differing": divergence.differing,
        **divergence.metrics,
        "differing_ratio": divergence.differing / divergence.compared if divergence.compared else None,
        "first_differing_character": _first_difference(divergence.characters),
        f"first_differing_{divergence.unit}": _first_difference(divergence.units, divergence.source),
        "mean_similarity": divergence.similarity,
        "similarity_of_differing": divergence.similarity_of_differing,
        "finish_reason_changes": [
            {"reference": before, "run": after, "count": count}
            for (before, after), count in divergence.finish_reasons.items()
        ],
        "output_tokens": divergence.output_tokens
        and dict(zip(("reference", "run"), divergence.output_tokens, strict=True)),
        "mean_output_token_change": divergence.mean_token_change,
        "only_reference_completed": divergence.only_reference,
        "only_run_completed": divergence.only_run,
        "moved_from_other_prompts": divergence.moved.count,
        "given_to_many_prompts": divergence.copied.count,
        "empty_instead_of_text": divergence.emptied,
    }
    return {name: value for name, value in figures.items() if value is not None}


def _first_difference(stats: FirstDifferenceStats | None, source: Source | None = None) -> dict[str, Any] | None:
    """Return the figures; a quartile that fewer pairs reach is absent, and `from` is where tokens are from."""
    if stats is None:
        return None
    quartiles = {"p25": stats.p25, "median": stats.median, "p75": stats.p75}
    return {
        **{name: value for name, value in quartiles.items() if value is not None},
        "at_start": stats.at_start,
        "never": stats.never,
        **({"from": source} if source else {}),
        "histogram": [{"low": low, "high": high, "count": count} for low, high, count in stats.histogram],
    }
