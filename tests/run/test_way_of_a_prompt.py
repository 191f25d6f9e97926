"""The way of one prompt, from the command line to its line in outcomes.jsonl, is short, as docs/architecture.md shows it."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes
from tests.servers.openai_server import OpenAIServer

HELPERS = ("errors", "types", "text", "config")
"""Rooms that hold values and small functions; they are not counted."""
MAX_ENTRIES = 3
Stacks = dict[str, list[str]]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def traced(folder: Path, *overrides: str) -> Stacks:
    """Return the modules on the two call stacks of a run's first prompt, outermost first, helpers left out."""
    command = ["tests.run.trace_prompt", str(folder / "stacks.json"), "tracking=off", "batch.warmup=0", *overrides]
    done = processes.run(command, cwd=folder)
    assert done.returncode == 0, done.stderr
    stacks = json.loads((folder / "stacks.json").read_text())
    assert list(stacks) == ["answer", "line"]
    return {
        name: [module for module in stack if module.partition(".")[0] not in HELPERS] for name, stack in stacks.items()
    }


def assert_short(stacks: Stacks, *, max_modules: int) -> None:
    way = list(dict.fromkeys(module for stack in stacks.values() for module in stack))
    assert way[0] == "__main__"
    assert way[-1] == "record.writer"
    assert len(way) <= max_modules, way
    for stack in stacks.values():
        entries = Counter(stack)
        assert max(entries.values()) <= MAX_ENTRIES, entries.most_common()


def test_an_echoed_prompt_passes_at_most_eight_modules(tmp_path: Path):
    stacks = traced(tmp_path, "provider=echo")
    assert "providers.echo" in stacks["answer"]
    assert_short(stacks, max_modules=8)


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_hosted_prompt_passes_at_most_eleven_modules(stream: str, server: OpenAIServer, tmp_path: Path):
    hosted = ("provider=openai", f"provider.base_url={server.url}/v1", "provider.api_key_env=null")
    stacks = traced(tmp_path, *hosted, f"provider.stream={stream}")
    assert any(module.startswith("providers.openai") for module in stacks["answer"])
    assert_short(stacks, max_modules=11)
