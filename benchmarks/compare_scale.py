"""What does a comparison cost? 10 runs of 10,000 prompts: seconds and peak memory of `python -m runner.compare`.

`RunFolder` and `OutcomeWriter` write the runs. A tenth of each run's texts differ from the reference's, from a
random word on; texts have 60 words. Asserts the limits of 20 s and 1 GB.
"""

import argparse
import random
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.watched import measured
from runner.cli.compose import compose_config
from runner.comparison.present.output import PAGE
from runner.record.folder import RunFolder
from runner.record.manifest import Summary
from runner.record.prompts import PackedPrompts
from runner.record.writer import OutcomeWriter
from runner.types import Completion, Message, Prompt, Timing, Usage

_WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "before", "sun", "comes", "up")
_TIMING = Timing(started_at=datetime(2026, 1, 1, tzinfo=UTC), latency_s=1.0, time_to_first_token_s=0.1)


def main(*, runs: int, prompts: int, differing: float, provider: str) -> None:
    """Write the runs, compare them in a new process, and print seconds and peak memory."""
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(runs):
            _write_run(Path(scratch) / str(number), number, prompts, differing, provider)
        seconds, peak_mb = measured(["runner.compare", scratch])
        page_mb = (Path(scratch) / PAGE).stat().st_size / 2**20
    print(
        f"{runs} runs of {prompts:,} prompts, {differing:.0%} of the answers differ: {seconds:.1f} s, {peak_mb:.0f} MiB"
    )
    print(f"{PAGE}: {page_mb:.1f} MiB")
    assert seconds < 20
    assert peak_mb < 1000


def _write_run(path: Path, number: int, count: int, differing: float, provider: str) -> None:
    path.mkdir(parents=True)
    folder = RunFolder(path)
    folder.write_config(compose_config([f"provider={provider}", "batch.mode=static", f"batch.size={2**number}"]))
    prompts = (Prompt(id=str(n), messages=(Message(role="user", content=f"Say {n}"),)) for n in range(count))
    folder.write_prompts(PackedPrompts(prompts))
    metrics = {"completed_prompts": count, "output_tokens": 60 * count, "output_tokens_per_s": 100.0 * 2**number}
    metrics |= {"input_tokens": 2 * count, "latency_p50_s": 1.0, "latency_p99_s": 2.0, "prompt_padding_ratio": 0.1}
    folder.write_summary(Summary(status="FINISHED", mlflow_run_id=None, metrics=metrics))
    with OutcomeWriter(folder) as outcomes:
        for prompt in range(count):
            outcomes.append([_completion(prompt, number, differing)])


def _completion(prompt: int, number: int, differing: float) -> Completion:
    shared, drawn = random.Random(prompt), random.Random(prompt * 1000 + number)  # noqa: S311 - no secret
    words = [shared.choice(_WORDS) for _ in range(60)]
    if number and drawn.random() < differing:
        start = drawn.randrange(60)
        words[start:] = [drawn.choice(_WORDS) for _ in range(60 - start)]
    usage = Usage(input_tokens=2, output_tokens=60)
    text = " ".join(words)
    return Completion(
        prompt_id=str(prompt), text=text, finish_reason="length", usage=usage, timing=_TIMING, model="echo"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--differing", type=float, default=0.1, help="share of the answers that differ")
    parser.add_argument("--provider", default="echo", help="transformers: the embedded model's tokens")
    main(**vars(parser.parse_args()))
