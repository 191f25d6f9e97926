"""What does the runner add to `generate()`? The same static batches, in one process, with and without the runner.

The bare loop is what one would write by hand: pad, generate, decode. The runner's side is its measured loop: plan the
batches, generate, write every outcome. Both generate each batch in turn, and which one is first alternates, because
the speed of a shared machine varies within a minute: read the ratio.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from transformers import AutoModelForCausalLM, AutoTokenizer

from runner.batching import static
from runner.batching.base import PendingPrompts
from runner.cli.compose import from_hydra
from runner.config.schema import CONF_DIR, RunConfig
from runner.prompts import load_prompts
from runner.providers.factory import build
from runner.providers.protocols import StaticProvider
from runner.providers.transformers import embedded
from runner.record.folder import RunFolder
from runner.record.writer import OutcomeWriter
from runner.types import Outcome, Prompt


def main(*, repeats: int, size: int, max_tokens: int) -> None:
    """Measure, and print a line per repeat and the median ratio."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = from_hydra(compose("config", [f"batch.size={size}", f"generation.max_tokens={max_tokens}"]))
    provider, prompts = build(config), load_prompts(config.prompts).prompts
    assert isinstance(provider, StaticProvider)
    bare, ratios = _bare_call(config), []
    with provider, tempfile.TemporaryDirectory() as scratch:
        batches = list(static.form_batches(provider, prompts, config.batch))
        bare(batches[0])
        for repeat in range(repeats):
            with _writer(Path(scratch) / str(repeat)) as writer:
                outcomes = static.generate(provider, PendingPrompts(prompts=prompts), config.params(), config.batch)
                runner_s = loop_s = 0.0
                for number, batch in enumerate(batches):
                    turns = [partial(bare, batch), partial(_write_next, outcomes, writer)]
                    order = (0, 1) if (number + repeat) % 2 else (1, 0)
                    seconds = {turn: _timed(turns[turn]) for turn in order}
                    loop_s, runner_s = loop_s + seconds[0], runner_s + seconds[1]
            ratios.append(runner_s / loop_s)
            print(f"bare loop {loop_s:7.3f} s   runner {runner_s:7.3f} s   ratio {ratios[-1]:.4f}")
    print(f"runner / bare loop = {statistics.median(ratios):.4f} (median of {repeats})")


def _timed(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _writer(folder: Path) -> OutcomeWriter:
    folder.mkdir()
    return OutcomeWriter(RunFolder(folder))


def _write_next(batches: Iterator[Sequence[Outcome]], writer: OutcomeWriter) -> None:
    writer.append(next(batches))


def _bare_call(config: RunConfig) -> Callable[[tuple[Prompt, ...]], None]:
    folder = embedded.resolve(config.model.id)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
    dtype = torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)

    def call(batch: tuple[Prompt, ...]) -> None:
        chats = [[{"role": "user", "content": prompt.text}] for prompt in batch]
        texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=config.generation.max_tokens, do_sample=False)
        tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return call


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=16, help="batch.size")
    parser.add_argument("--max-tokens", type=int, default=64)
    main(**vars(parser.parse_args()))
