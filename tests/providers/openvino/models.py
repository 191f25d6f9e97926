"""Tiny models of random weights: a GGUF file, and the folder that a conversion makes of it."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from runner.config.schema import RunConfig
from runner.providers.factory import build
from runner.providers.protocols import Provider
from runner.types import Completion
from tests.factories import outcomes_of, prompts

END, SPECIAL = 2, ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONTEXT = 256
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_HIDDEN, _HEADS, _KV_HEADS, _LAYERS, _FEED_FORWARD, _SCALE = 64, 4, 2, 2, 128, 0.4


def write_gguf(path: Path, *, template: str | None = TEMPLATE) -> Path:
    """Write a Llama of random weights (half floats), whose tokens are bytes. Its tokenizer has one merge: h and e."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_HIDDEN)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_rope_dimension_count(_HIDDEN // _HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(1)
    _add_tokenizer(writer, template)
    _add_weights(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def convert(gguf: Path, folder: Path, **generation_config: Any) -> Path:
    """Make the folder that `optimum-cli export openvino` makes of a model: its graph, tokenizers and configurations."""
    import openvino
    from openvino_genai import ContinuousBatchingPipeline, SchedulerConfig
    from openvino_tokenizers import convert_tokenizer
    from transformers import AutoTokenizer

    folder.mkdir()
    copy = Path(shutil.copy(gguf, folder))  # the graph is saved beside the file
    ContinuousBatchingPipeline(str(copy), SchedulerConfig(), "CPU", {"enable_save_ov_model": True})
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=copy.name)
    copy.unlink()
    tokenizer.save_pretrained(folder)
    graphs = convert_tokenizer(tokenizer, with_detokenizer=True)
    for name, graph in zip(("openvino_tokenizer.xml", "openvino_detokenizer.xml"), graphs, strict=True):
        openvino.save_model(graph, folder / name)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": CONTEXT}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": END} | generation_config))
    return folder


def answers(config: RunConfig, *texts: str, loaded: Provider | None = None) -> dict[tuple[str, int], Completion]:
    """Return the completions by text and choice, of a loaded provider or of a new one; every outcome must be one."""
    asked = prompts(*texts)
    text_of = {prompt.id: prompt.text for prompt in asked}
    with nullcontext(loaded) if loaded else build(config) as provider:
        outcomes = outcomes_of(provider, asked, config.params(), config.with_mode("continuous").batch)
    assert all(isinstance(outcome, Completion) for outcome in outcomes), outcomes
    return {(text_of[o.prompt_id], o.choice): o for o in outcomes if isinstance(o, Completion)}


def _byte_alphabet() -> list[str]:
    """Return the character that stands for each byte in a vocabulary of GPT-2's kind."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _add_tokenizer(writer: Any, template: str | None) -> None:
    tokens = [*SPECIAL, *_byte_alphabet(), "he"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(END)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)


def _add_weights(writer: Any) -> None:
    random = np.random.default_rng(0)
    kv_width, feed_forward = _HIDDEN // _HEADS * _KV_HEADS, _FEED_FORWARD
    shapes = {"token_embd": (len(SPECIAL) + 257, _HIDDEN)}
    for layer in range(_LAYERS):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_q": (_HIDDEN, _HIDDEN), "attn_k": (kv_width, _HIDDEN), "attn_v": (kv_width, _HIDDEN),
                "attn_output": (_HIDDEN, _HIDDEN), "ffn_gate": (feed_forward, _HIDDEN),
                "ffn_up": (feed_forward, _HIDDEN), "ffn_down": (_HIDDEN, feed_forward),
            }.items()
        }  # fmt: skip
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(_HIDDEN, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(_HIDDEN, np.float32))
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", (random.standard_normal(shape) * _SCALE).astype(np.float16))
