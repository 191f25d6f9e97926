"""What is kept of outcomes while they are read once."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import app
from runner.record.folder import RunFolder
from runner.tracking.digest import Thinned, read_digest
from tests.conftest import Compose


@given(st.integers(2, 40), st.integers(0, 3000))
def test_a_thinned_stream_keeps_evenly_spread_items_from_the_first_on(max_items: int, count: int):
    thinned = Thinned[int](max_items)
    for item in range(count):
        thinned.add(item)
    assert len(thinned.items) <= max_items
    assert len(thinned.items) > max_items / 2 or thinned.items == list(range(count))
    intervals = {later - earlier for earlier, later in zip(thinned.items, thinned.items[1:], strict=False)}
    assert len(intervals) <= 1
    assert thinned.items[:1] == list(range(count))[:1]


@given(st.integers(2, 40), st.integers(0, 1000), st.integers(0, 1000))
def test_what_is_kept_of_a_longer_stream_was_kept_of_its_beginning_too(max_items: int, count: int, more: int):
    thinned = Thinned[int](max_items)
    for item in range(count):
        thinned.add(item)
    before = set(thinned.items)
    for item in range(count, count + more):
        thinned.add(item)
    assert {item for item in thinned.items if item < count} <= before


def test_a_long_runs_curve_table_and_sample_are_bounded(config: Compose, tmp_path: Path):
    (tmp_path / "p.txt").write_text("".join(f"text {number}\n" for number in range(5000)))
    source = ["prompts=file", f"prompts.path={tmp_path / 'p.txt'}", "batch.size=1", "generation.max_tokens=1"]
    folder = app.run(config("provider=echo", *source), tmp_path / "run").folder
    digest = read_digest(folder, folder.read_prompts(), config("batch.size=1").batch, frozenset())
    steps = [step.number for step in digest.steps]
    assert steps == list(range(0, 5000, 4))
    timings = [outcome.timing for outcome in folder.outcomes.read()]
    assert digest.ended_at == max(timing.started_at + timedelta(seconds=timing.elapsed_s) for timing in timings)
    assert [row["prompt"] for row in digest.table] == [f"text {number}" for number in range(1000)]
    assert len(digest.untraced) == 16


@pytest.mark.parametrize("count", [0, 1, 16, 17, 40])
def test_a_sample_has_every_outcome_of_a_short_run_and_sixteen_of_a_longer_one(
    count: int, config: Compose, tmp_path: Path
):
    folder = RunFolder(tmp_path)
    if count:
        folder = app.run(config("provider=echo", f"prompts.limit={count}"), tmp_path).folder
    else:
        (tmp_path / "prompts.jsonl").touch()
    sample = read_digest(folder, folder.read_prompts(), config("batch.size=1").batch, frozenset()).untraced
    assert len({outcome.prompt_id for outcome in sample}) == len(sample) == min(count, 16)
