"""The view of a sweep's jobs in the MLflow UI: which runs, columns and charts its link opens.

The UI keeps a shared view as a tag of the experiment. The format is not documented: this one was read in the UI of
MLflow 3.17. The UI of another version may not know it, and then shows its list of runs.
"""

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from runner.record.manifest import MlflowRunRef

_RATE, _SIZE = "prompts_per_s", "batch.size"
_SECTION = "Sweep"
_NAME_COLUMN, _NAME_WIDTH = "attributes.`Run Name`", 200
_CHAR_WIDTH, _MARGIN = 7, 34
"""Pixels of a character of a column's head, and of what stands beside the head."""


def jobs_page(parent: MlflowRunRef) -> str:
    """Return where the UI shows the jobs of a sweep side by side, from the server's root on."""
    return f"{parent.runs_page}&viewStateShareKey={parent.run_id}"


def view_tag(parent_id: str) -> str:
    """Return the experiment's tag that holds the view of a sweep's jobs."""
    return f"mlflow.sharedViewState.{parent_id}"


def shared_view(parent_id: str, *, title: str, time_ms: int, params: Sequence[str], metrics: Sequence[str]) -> str:
    """Return the value of the tag: a saved view by the name `title`, the fastest job first.

    Args:
        parent_id: the parent run of the jobs.
        title: the view's in the UI's list of views.
        time_ms: when the view was made. The UI writes a later `updatedAt` where a person changes the view.
        params: columns of settings.
        metrics: columns of figures, each with a chart.
    """
    columns = [*(f"params.`{name}`" for name in params), *(f"metrics.`{name}`" for name in metrics)]
    widths = [_MARGIN + _CHAR_WIDTH * len(name) for name in (*params, *metrics)]
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_id}'",
        "orderByKey": f"metrics.`{_RATE}`",  # sorted by time, the UI would fold the jobs under their parent
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": [_NAME_COLUMN, *columns],
        "columnWidths": {_NAME_COLUMN: _NAME_WIDTH, **dict(zip(columns, widths, strict=True))},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": list(_charts(params, metrics)),
        "compareRunSections": [_section(_SECTION, is_open=True), _section("Model metrics"), _section("batch")],
        "isAccordionReordered": True,
    }
    compressed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": title, "createdAt": time_ms, "updatedAt": time_ms, "state": f"deflate;{compressed}"}
    return json.dumps(view)


def is_changed_by_hand(view: str) -> bool:
    """Return whether a person has saved the view anew in the UI."""
    try:
        values = json.loads(view)
        return bool(values["updatedAt"] != values["createdAt"])
    except (ValueError, TypeError, KeyError):
        return True


def _section(name: str, *, is_open: bool = False) -> dict[str, Any]:
    return {"uuid": name, "name": name, "display": is_open, "isReordered": True, "deleted": False, "isGenerated": False}


def _charts(params: Sequence[str], metrics: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a bar chart of each metric, and the rate over the batch size where it was swept."""
    common = {"metricSectionId": _SECTION, "isGenerated": False, "deleted": False, "runsCountToCompare": 100}
    for name in metrics:
        yield {**common, "type": "BAR", "uuid": f"bar-{name}", "metricKey": name, "displayName": name}
    if _SIZE in params and _RATE in metrics:
        axes = {"xaxis": {"key": _SIZE, "type": "PARAM"}, "yaxis": {"key": _RATE, "type": "METRIC"}}
        yield {**common, "type": "SCATTER", "uuid": "rate-by-size", **axes}
