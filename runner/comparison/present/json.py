"""A comparison as plain data: comparison.json, and what `--json` prints. A figure that does not exist is absent."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from runner.comparison.compare import Compared, Comparison
from runner.comparison.divergence import Divergence, FirstDifferenceStats
from runner.comparison.load import Run
from runner.comparison.pairing import Difference
from runner.comparison.speed import Row, Spread


def as_data(comparison: Comparison) -> dict[str, Any]:
    """Return everything but the texts, which are in the runs' folders."""
    metrics = comparison.metrics
    return {
        "runs": [_run(run, metrics.get(run.folder, {})) for run in comparison.runs],
        "rows": [_row(row) for row in comparison.rows],
        "compared": [_compared(one) for one in comparison.compared],
        "notes": [asdict(note) for note in comparison.notes],
    }


def _run(run: Run, added: Mapping[str, float]) -> dict[str, Any]:
    return {
        "label": run.label,
        "folder": str(run.folder),
        "status": run.status,
        "mlflow_run_id": run.summary.mlflow_run_id if run.summary else None,
        "prompts_sha256": run.prompts_sha256,
        "settings": dict(run.settings),
        "metrics": {**run.metrics, **added},
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "runs": [run.label for run in row.runs],
        "status": row.status,
        "figures": {name: _spread(spread) for name, spread in row.figures.items()},
        "reference": row.reference,
        **({"speedup": _spread(row.speedup)} if row.speedup else {}),
        **({"inside_noise": row.in_noise} if row.in_noise is not None else {}),
        "pareto_front": row.on_front,
    }


def _spread(spread: Spread) -> dict[str, float]:
    return asdict(spread)


def _compared(one: Compared) -> dict[str, Any]:
    pair = one.pair
    return {
        "run": pair.run.label,
        "reference": pair.reference.label,
        "kind": pair.kind,
        **({"reason": pair.reason} if pair.reason else {}),
        "asked_differs": _differences(pair.asked),
        "settings_differ": _differences(pair.settings),
        **({"prompts_in_common": len(pair.common)} if pair.common is not None else {}),
        **({"texts": _texts(one.texts)} if one.texts else {}),
    }


def _differences(differences: Iterable[Difference]) -> list[dict[str, Any]]:
    return [asdict(difference) for difference in differences]


def _texts(texts: Divergence) -> dict[str, Any]:
    found = {
        "compared": texts.compared,
        "equal": texts.equal,
        "differing": texts.differing,
        "exact_match_ratio": texts.exact_match_ratio,
        "differing_ratio": texts.differing / texts.compared if texts.compared else None,
        "first_differing_character": _spots(texts.characters),
        f"first_differing_{texts.unit}": _spots(texts.units),
        "similarity_of_differing": texts.similarity,
        "finish_reason_changes": [
            {"reference": before, "run": after, "count": count}
            for (before, after), count in texts.finish_reasons.items()
        ],
        "output_tokens": {"reference": texts.output_tokens[0], "run": texts.output_tokens[1]},
        "mean_output_token_change": texts.mean_token_change,
        "only_reference_completed": texts.only_reference,
        "only_run_completed": texts.only_run,
        "moved_from_other_prompts": texts.moved,
        "empty_instead_of_text": texts.emptied,
    }
    return {name: value for name, value in found.items() if value is not None}


def _spots(spots: FirstDifferenceStats | None) -> dict[str, Any] | None:
    if spots is None:
        return None
    bins = [{"low": low, "high": high, "count": count} for low, high, count in spots.histogram]
    return {"p25": spots.p25, "median": spots.median, "p75": spots.p75, "at_start": spots.at_start, "histogram": bins}
