"""Writes run folders for comparisons."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from runner.record.folder import RunFolder
from runner.record.manifest import Status, Summary
from runner.record.prompts import PackedPrompts
from runner.record.writer import OutcomeWriter
from runner.types import Message, Outcome, Prompt
from tests.comparison.helpers import Texts, Write
from tests.conftest import Compose
from tests.factories import completion


@pytest.fixture
def write_run(tmp_path: Path, config: Compose) -> Write:
    """Write a run's folder with the product's own writers: {prompt id: text}, or outcomes."""

    def write(
        name: str,
        texts: Texts | Sequence[Outcome],
        *overrides: str,
        prompts: Texts | None = None,
        metrics: dict[str, float] | None = None,
        status: Status = "FINISHED",
    ) -> Path:
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir(parents=True)
        outcomes = texts if not isinstance(texts, dict) else [completion(id_, text=t) for id_, t in texts.items()]
        messages = prompts or {outcome.prompt_id: f"prompt {outcome.prompt_id}" for outcome in outcomes}
        folder.write_config(config("provider=echo", "batch.mode=static", *overrides))
        folder.write_prompts(
            PackedPrompts(Prompt(id=i, messages=(Message(role="user", content=t),)) for i, t in messages.items())
        )
        folder.write_summary(Summary(status=status, mlflow_run_id=None, metrics=metrics or {"completed_prompts": 1}))
        with OutcomeWriter(folder) as writer:
            writer.append(outcomes)
        return folder.path

    return write
