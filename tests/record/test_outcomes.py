"""Reads outcomes.jsonl: a torn last line is no outcome, and a line that is none is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import JournalError
from runner.record.folder import OUTCOMES, RunFolder
from runner.record.writer import OutcomeWriter
from runner.types import Outcome
from tests.factories import completion
from tests.record.strategies import outcomes as written_outcomes


@given(outcomes=st.lists(written_outcomes, min_size=1, max_size=4, unique=True), data=st.data())
def test_any_prefix_of_the_outcomes_reads_as_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[Outcome], data: st.DataObject
):
    folder = tmp_path_factory.mktemp("torn")
    with OutcomeWriter(RunFolder(folder)) as writer:
        for outcome in outcomes:
            writer.append([outcome])
    whole = (folder / OUTCOMES).read_bytes()
    kept = whole[: data.draw(st.integers(0, len(whole)))]
    (folder / OUTCOMES).write_bytes(kept)
    assert list(RunFolder(folder).outcomes.read()) == outcomes[: kept.count(b"\n")]


def test_a_line_that_stands_twice_counts_once(tmp_path: Path):
    answers = [completion("a", choice=0), completion("b", choice=0)]
    with OutcomeWriter(RunFolder(tmp_path)) as writer:
        writer.append(answers)
    path = tmp_path / OUTCOMES
    path.write_bytes(path.read_bytes() * 2)
    outcomes = RunFolder(tmp_path).outcomes
    assert list(outcomes.read()) == answers
    assert list(outcomes.read_all()) == answers, "paid once"
    assert outcomes.read_progress(choices=2).completed == set(), "one answer of two"


def test_a_line_that_is_no_outcome_is_named(tmp_path: Path):
    with OutcomeWriter(RunFolder(tmp_path)) as writer:
        writer.append([completion("a")])
    with (tmp_path / OUTCOMES).open("ab") as file:
        file.write(b'{"prompt_id": "b"}\n')
    with pytest.raises(JournalError, match="line 2: not an outcome"):
        list(RunFolder(tmp_path).outcomes.read())
