"""The planted faults are faults: in float32, where rounding changes no token, they change answers of a batch."""

from pathlib import Path
from typing import Any

import pytest

from runner import app
from runner.record.folder import RunFolder
from runner.types import Completion
from tests.conftest import Compose
from tests.providers.transformers import planted

TEXTS = ("a", "some words", "a much longer prompt than the others are", "mid length here")
pytestmark = pytest.mark.slow


def tokens(folder: Path) -> list[Any]:
    return [outcome.token_ids for outcome in RunFolder(folder).outcomes.read() if isinstance(outcome, Completion)]


@pytest.mark.parametrize("kind", planted.FAULTS)
def test_a_planted_fault_changes_answers_of_a_batch_and_none_of_a_prompt_alone(
    kind: Any, config: Compose, tiny_model: Path, tmp_path: Path
):
    (tmp_path / "p.txt").write_text("\n".join(TEXTS))
    base = (f"model.id={tiny_model}", "provider.dtype=float32", "provider.device=cpu", "generation.max_tokens=12",
            "prompts=file", f"prompts.path={tmp_path / 'p.txt'}")  # fmt: skip
    alone = config(*base, "batch.mode=static", "batch.size=1")
    app.run(alone, tmp_path / "sound")
    planted.run(kind, alone, tmp_path / "alone")
    planted.run(kind, config(*base, "batch.mode=static", "batch.size=4"), tmp_path / "batch")
    sound = tokens(tmp_path / "sound")
    assert len(sound) == len(TEXTS)
    assert tokens(tmp_path / "alone") == sound
    different = [ours != right for ours, right in zip(tokens(tmp_path / "batch"), sound, strict=True)]
    assert any(different)
    assert not all(different), "a row without padding, or the first, is as it should be"
