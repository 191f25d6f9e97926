"""`--json` prints the whole comparison."""

import json

import pytest

from runner.cli import compare
from runner.comparison.compare import compare_folders
from runner.comparison.present.json import as_data
from tests.comparison.helpers import (
    Write,
    sentences,
)


def test_json_is_the_whole_comparison_and_nothing_else(write_run: Write, capsys: pytest.CaptureFixture[str]):
    runs = [write_run("a", sentences(4), "batch.size=1"), write_run("b", sentences(4, other_from=3))]
    compare.main([*map(str, runs), "--json"])
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads(json.dumps(as_data(compare_folders(runs))))
    (one,) = data["compared"]
    assert (one["kind"], one["texts"]["exact_match_ratio"]) == ("divergence", 0.75)
    assert one["texts"]["first_differing_token"]["median"] == 4
    assert "NaN" not in json.dumps(data)
