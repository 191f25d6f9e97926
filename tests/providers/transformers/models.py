"""Model folders that tests change, and what a loaded provider answers."""

import json
from pathlib import Path

from runner.config.schema import RunConfig
from runner.providers.factory import build
from runner.types import Completion
from tests.factories import outcomes_of, prompts


def with_tokenizer(source: Path, folder: Path, **settings: object) -> Path:
    """Make `folder` a model folder with the files of `source`, and `settings` in its tokenizer's configuration."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).symlink_to(file)
    path = folder / "tokenizer_config.json"
    changed = json.loads(path.read_text()) | settings
    path.unlink()
    path.write_text(json.dumps(changed))
    return folder


def answers(config: RunConfig, texts: list[str]) -> list[Completion]:
    """Return the outcomes of `texts`, all of them completions."""
    with build(config) as provider:
        outcomes = outcomes_of(provider, prompts(*texts), config.params(), config.with_mode("static").batch)
    return [outcome for outcome in outcomes if isinstance(outcome, Completion)]


def ends(completions: list[Completion]) -> list[tuple[object, ...]]:
    """Return tokens, text and finish reason of each answer."""
    return [(answer.token_ids, answer.text, answer.finish_reason) for answer in completions]
