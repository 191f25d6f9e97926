"""Is every difference of a sound harness a near-tie, and is a planted fault reported?

Sound: batch sizes 1, 4, 16, 64 over the demo prompts in bfloat16 and in float32, then small sweeps of sizes 1 and 8
over other prompts, seeds and lengths. An unexplained difference there is a false alarm. Planted: right padding, a
shifted attention mask, and one answer for every row, in batches of 8 against the sound run alone. A fault without an
unexplained difference is a miss. All runs are real ones of the embedded model, in this process.
"""

import argparse
import logging
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runner import app
from runner.cli.compose import compose_config
from runner.comparison.compare import compare_folders
from runner.comparison.explain import Explanation
from runner.comparison.explain_pairs import ExplainRequest
from runner.config.schema import RunConfig
from runner.prompts import load_prompts
from runner.record.prompts import PackedPrompts
from tests.providers.transformers import planted

SIZES = (1, 4, 16, 64)
DTYPES = ("bfloat16", "float32")
LENGTHS = (8, 16, 24, 32)
"""max_tokens of the small sweeps, in turn."""


def main(*, prompts: int, tokens: int, sweeps: int) -> None:
    """Measure and print."""
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demo = load_prompts(compose_config([]).prompts).prompts
        sizes = [size for size in SIZES if size <= prompts]
        for dtype in DTYPES:
            file = _prompts_file(folder / dtype, demo, count=prompts, seed=None)
            configs = [_config(file, dtype, size, tokens, seed=0) for size in sizes]
            for size, explanation in zip(sizes[1:], _sweep(folder / dtype, configs), strict=True):
                _print(f"{dtype}, size {size} against 1, {prompts} prompts", explanation)
        false_alarms = 0
        for number in range(sweeps):
            file = _prompts_file(folder / str(number), demo, count=16, seed=number)
            length = LENGTHS[number % len(LENGTHS)]
            configs = [_config(file, "bfloat16", size, length, seed=number) for size in (1, 8)]
            (explanation,) = _sweep(folder / str(number), configs)
            false_alarms += bool(explanation.unexplained)
            _print(f"small sweep {number}, {length} tokens", explanation)
        print(f"small sound sweeps with an unexplained difference: {false_alarms} of {sweeps}")
        _planted(folder / "planted", demo)


def _planted(folder: Path, demo: PackedPrompts) -> None:
    file = _prompts_file(folder, demo, count=16, seed=0)
    for dtype in DTYPES:
        alone = folder / f"{dtype}-alone"
        app.run(_config(file, dtype, 1, 16, seed=0), alone)
        for kind in planted.FAULTS:
            faulty = folder / f"{dtype}-{kind.__name__}"
            planted.run(kind, _config(file, dtype, 8, 16, seed=0), faulty)
            (explanation,) = _explain([alone, faulty])
            _print(f"planted {kind.__name__}, {dtype}", explanation)


def _prompts_file(folder: Path, demo: PackedPrompts, *, count: int, seed: int | None) -> Path:
    """Write prompts of the demo set: the first, or with a seed a random sample."""
    folder.mkdir()
    chosen = demo[:count] if seed is None else random.Random(seed).sample(list(demo), count)  # noqa: S311 - no secret
    path = folder / "prompts.jsonl"
    path.write_bytes(bytes(PackedPrompts(chosen).lines))
    return path


def _config(prompts: Path, dtype: str, size: int, tokens: int, *, seed: int) -> RunConfig:
    return compose_config(
        ["tracking=off", "batch.mode=static", "batch.warmup=0", "prompts=file", f"prompts.path={prompts}",
         f"provider.dtype={dtype}", f"batch.size={size}", f"generation.max_tokens={tokens}", f"seed={seed}"]
    )  # fmt: skip


def _sweep(folder: Path, configs: Sequence[RunConfig]) -> list[Explanation]:
    for number, config in enumerate(configs):
        app.run(config, folder / str(number))
    return _explain([folder / str(number) for number in range(len(configs))])


def _explain(folders: Sequence[Path]) -> list[Explanation]:
    comparison = compare_folders(folders, explain=ExplainRequest())
    return [entry.explanation for entry in comparison.compared if entry.explanation]


def _print(what: str, explanation: Explanation) -> None:
    if not explanation.explained:
        print(f"{what}: {explanation.reason or 'no difference, nothing to explain'}")
        return
    bound = explanation.bound
    largest = "" if explanation.max_margin is None else f", largest margin {explanation.max_margin:.3g}"
    noise = f", noise bound {bound.max_change:.3g} at {bound.positions} positions" if bound else ""
    print(
        f"{what}: {explanation.near_ties} of {explanation.differences} differences are near-ties, "
        f"{len(explanation.unexplained)} unexplained{largest}{noise}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64, help="demo prompts of the two large sweeps")
    parser.add_argument("--tokens", type=int, default=64, help="max_tokens of the two large sweeps")
    parser.add_argument("--sweeps", type=int, default=20, help="small sound sweeps")
    main(**vars(parser.parse_args()))
