"""A run that is killed (SIGKILL) again and again: nothing is lost, and nothing that was kept is asked for again.

RUNNER_KILLS says how often (`make test-faults`: 200), RUNNER_KILLS_SEED when.
"""

import itertools
import json
import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runner.record.folder import RunFolder
from runner.types import Completion
from tests import processes
from tests.processes import Process
from tests.servers.openai_server import Asked, OpenAIServer

KILLS = int(os.environ.get("RUNNER_KILLS", "30"))
SEED = int(os.environ.get("RUNNER_KILLS_SEED", "0"))
START_UP_S = 1.0
"""About how long a forked process takes until its first request, and a little more."""


class Killed:
    """One process after another on one run, each killed at a moment of its own."""

    def __init__(self, server: OpenAIServer, folder: Path, seed: int) -> None:
        self.server, self.folder, self.run = server, folder, folder / "run"
        self.random = random.Random(seed)
        self.wall_s = 0.0
        self.moments: Counter[str] = Counter()

    def start(self, *arguments: str) -> Process:
        environment = os.environ | {"OPENAI_API_KEY": "planted"}
        with (self.folder / "stderr.txt").open("ab") as errors:
            return processes.start(
                arguments, cwd=self.folder, env=environment, stdout=subprocess.DEVNULL, stderr=errors
            )

    def kill(self, process: Process, requests: range, *, at_any_moment: bool = False) -> None:
        """Kill it a few milliseconds after one of its requests, or at any moment from its start if that comes first."""
        began, asked = time.monotonic(), len(self.server.asked)
        until = began + (self.random.uniform(0, START_UP_S) if at_any_moment else 120)
        after = asked + self.random.choice(requests)
        while len(self.server.asked) < after and time.monotonic() < until and process.poll() is None:
            time.sleep(0.001)
        time.sleep(self.random.uniform(0, 0.06))
        assert process.poll() is None, f"it ended by itself: {(self.folder / 'stderr.txt').read_text()}"
        process.kill()
        process.wait()
        self.wall_s += time.monotonic() - began
        self.moments["generating" if len(self.server.asked) > asked else "starting"] += 1


def prompts_of(asked: Asked) -> list[str]:
    prompts: Any = asked.body["prompt"] if "prompt" in asked.body else asked.body["messages"][-1]["content"]
    return [prompts] if isinstance(prompts, str) else prompts


def completed(run: Path) -> list[str]:
    """Return the prompt ids of the completions on disk, read without the product's help."""
    whole, _, _ = (run / "outcomes.jsonl").read_bytes().rpartition(b"\n")
    return [line["prompt_id"] for line in map(json.loads, whole.splitlines()) if line["error"] is None]


@pytest.mark.parametrize(
    ("overrides", "kills", "requests", "per_kill"),
    [
        pytest.param(["provider.endpoint=chat"], KILLS, range(4, 20), 14, id="concurrent"),
        pytest.param(["provider.endpoint=completions", "batch.mode=static"], max(3, KILLS // 10), range(1, 4), 40, id="static"),
    ],
)  # fmt: skip
def test_a_run_that_is_killed_again_and_again_has_one_answer_a_prompt_and_asks_for_none_twice(
    overrides: list[str], kills: int, requests: range, per_kill: int, tmp_path: Path
):
    texts = {str(number): f"prompt number {number} of many" for number in range(per_kill * kills)}
    ids = {text: prompt_id for prompt_id, text in texts.items()}
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"id": i, "prompt": t}) + "\n" for i, t in texts.items()))
    with OpenAIServer(first_token_s=0.03, token_s=0.005) as server:
        killed = Killed(server, tmp_path, SEED)
        where = [f"provider.base_url={server.url}/v1", "prompts=file", "prompts.path=p.jsonl", "hydra.run.dir=run"]
        first = killed.start("runner", "provider=openai", "tracking=off", "batch.size=8", *overrides, *where)
        killed.kill(first, requests)
        for kill in range(1, kills + 1):
            done, before = set(completed(killed.run)), len(server.asked)
            process = killed.start("runner.resume", "run")
            if kill < kills:
                killed.kill(process, requests, at_any_moment=killed.random.random() < 0.2)
            else:
                began = time.monotonic()
                assert process.wait(120) == 0, (tmp_path / "stderr.txt").read_text()
                killed.wall_s += time.monotonic() - began
            again = [ids[text] for asked in server.asked[before:] for text in prompts_of(asked)]
            assert not done.intersection(again), "what has its answer is not asked for again"
    asked_for = Counter(ids[text] for asked in server.asked for text in prompts_of(asked))
    assert sum(killed.moments.values()) == kills
    assert killed.moments["generating"] > kills / 2, killed.moments
    assert sum(asked_for.values()) - len(texts) <= 8 * kills, "only what was in flight at a kill is asked for again"

    lines = (killed.run / "outcomes.jsonl").read_text().splitlines()
    assert Counter(completed(killed.run)) == Counter(list(texts)), "exactly one completion a prompt"
    assert len(lines) == len(texts)
    outcomes = list(RunFolder(killed.run).outcomes.read())
    assert {outcome.prompt_id: outcome.text for outcome in outcomes if isinstance(outcome, Completion)} == texts
    assert len(outcomes) == len(texts)
    segments = [json.loads(line)["segment"] for line in lines]
    assert all(earlier <= later for earlier, later in itertools.pairwise(segments))
    assert len(set(segments)) > kills / 3, "most processes got something done"

    summary = json.loads((killed.run / "summary.json").read_text())
    metrics = summary["metrics"]
    assert (summary["status"], metrics["completed_prompts"], metrics["failed_prompts"]) == ("FINISHED", len(texts), 0)
    assert metrics["retries"] == 0
    assert 0 < metrics["duration_s"] <= killed.wall_s, "the time between processes is not the run's"
    assert 0 <= metrics["overhead_s"] <= metrics["duration_s"]
    assert metrics["prompts_per_s"] == pytest.approx(len(texts) / metrics["duration_s"])
