"""What does the runner itself cost per prompt? 100,000 prompts through provider=echo: seconds and memory growth.

Each size runs in a fresh process. Memory growth is the peak resident size beyond that of a run of 100 prompts. The
part of the prompt set in it is measured by loading the set alone.
"""

import argparse
import json
import tempfile
from pathlib import Path

import psutil

from benchmarks.watched import measured
from runner.config.schema import PromptsConfig
from runner.prompts import load_prompts


def main(*, prompts: int, mode: str) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        prompt_set_mb = _prompt_set_mb(write_prompts(Path(scratch) / "all.jsonl", prompts))
        _, small_mb = _run(write_prompts(Path(scratch) / "few.jsonl", 100), mode, Path(scratch))
        seconds, peak_mb = _run(Path(scratch) / "all.jsonl", mode, Path(scratch))
    growth = peak_mb - small_mb
    print(f"{prompts:,} prompts, provider=echo, {mode}: {seconds:.1f} s in all")
    print(
        f"peak memory {peak_mb:.0f} MiB, {growth:.0f} MiB beyond 100 prompts, of which {prompt_set_mb:.0f} MiB are the "
        "prompt set"
    )


def write_prompts(path: Path, count: int) -> Path:
    """Write a prompt set of short texts, and return its path."""
    words = "the quick brown fox jumps over the lazy dog and runs away from the farm before the sun is up"
    lines = (json.dumps({"id": f"p{number}", "prompt": f"{number} {words}"}) for number in range(count))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _prompt_set_mb(path: Path) -> float:
    process = psutil.Process()
    before = process.memory_info().rss
    config = PromptsConfig(
        path=str(path), format=None, dataset=None, subset=None, split=None, revision=None, limit=None, system=None,
        text_field="prompt", messages_field="messages", id_field="id",
    )  # fmt: skip
    prompts = load_prompts(config).prompts  # in memory until the second reading
    size_mb = (process.memory_info().rss - before) / 2**20
    assert prompts
    return size_mb


def _run(path: Path, mode: str, scratch: Path) -> tuple[float, float]:
    """Return wall seconds and peak MiB of a whole `python -m runner`, as the operating system counted them."""
    overrides = ["provider=echo", f"batch.mode={mode}", "prompts=file", f"prompts.path={path}"]
    overrides += [f"tracking.uri=sqlite:///{scratch}/mlflow.db", f"hydra.run.dir={scratch}/{path.stem}"]
    return measured(["runner", *overrides])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--mode", default="concurrent", help="batch.mode")
    main(**vars(parser.parse_args()))
