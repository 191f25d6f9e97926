"""A line of outcomes.jsonl: the fields of the contract, and what is written is what is read."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.record.folder import OUTCOMES, RunFolder
from runner.record.writer import OutcomeWriter
from runner.types import Outcome
from tests.factories import completion, failure
from tests.record.strategies import outcomes as written_outcomes


@given(st.lists(written_outcomes, max_size=5, unique=True))
def test_outcomes_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, outcomes: list[Outcome]):
    folder = tmp_path_factory.mktemp("outcomes")
    with OutcomeWriter(RunFolder(folder)) as writer:
        for outcome in outcomes:
            writer.append([outcome])
    assert list(RunFolder(folder).outcomes.read()) == outcomes
    assert (folder / OUTCOMES).read_bytes().count(b"\n") == len(outcomes), "one line per outcome"


def test_a_line_has_the_fields_of_the_contract(tmp_path: Path):
    with OutcomeWriter(RunFolder(tmp_path)) as writer:
        writer.append([completion("a", text="héllo 日本")])
        writer.append([failure("b")])
    first, second = map(json.loads, (tmp_path / OUTCOMES).read_text(encoding="utf-8").splitlines())
    fields = (
        "prompt_id choice segment batch text finish_reason input_tokens output_tokens latency_s time_to_first_token_s"
    )
    assert list(first) == list(second) == [*fields.split(), "attempts", "started_at", "model", "error"]
    assert first["error"] is None
    assert second["error"] == {"type": "Refused", "message": "no", "retryable": False}
    assert second["text"] is None, "a failure has no text, not even an empty one"
    assert "日本" in (tmp_path / OUTCOMES).read_text(encoding="utf-8"), "a person can read it"
