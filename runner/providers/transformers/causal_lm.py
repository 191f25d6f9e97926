"""A loaded causal language model: from prompts to token rows, and from token rows to answers, row by row.

Sources: transformers 5.23 `generation/utils.py` (padding, end-of-sequence fill, inherited generation configs).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.config.schema import GenerationParams
from runner.types import FinishReason, Prompt, Stopwatch

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedRow:
    """One row, read up to its own end. `tokens` counts the end-of-sequence token."""

    text: str
    tokens: int
    finish_reason: FinishReason


class PromptEncoder:
    """Writes prompts as the model reads them: template applied where there is one, then tokens."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, use_template: bool) -> None:
        self.tokenizer = tokenizer
        self.uses_template = use_template and bool(getattr(tokenizer, "chat_template", None))

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the token ids of one prompt, nothing padded; none for a text that cannot be written as UTF-8."""
        try:
            prompt.text.encode("utf-8")
        except UnicodeEncodeError:
            return []
        if self.uses_template:
            messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.tokenizer(prompt.text)["input_ids"])


class CausalLM:
    """A model with its tokenizer: from token rows to answers."""

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        self.model = model
        self._tokenizer = tokenizer
        self._eos = _end_of_sequence_ids(model, tokenizer)
        self.context_length = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**62
        # generate() fills what a call leaves open from the checkpoint's own generation config (top_k, repetition
        # penalty ...): an experiment states everything itself.
        model.generation_config = type(model.generation_config)()

    def generate(self, encoded: list[list[int]], params: GenerationParams, watch: Stopwatch) -> list[list[int]]:
        """Return the new tokens of every row, `n` neighbours per prompt, each as long as the longest."""
        import torch

        if not encoded:
            return []
        inputs = self._tokenizer.pad({"input_ids": encoded}, padding_side="left", return_tensors="pt")
        inputs = inputs.to(self.model.device)
        stops = {"tokenizer": self._tokenizer} if params.stop_sequences else {}
        with torch.inference_mode():
            output = self.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                generation_config=self._generation_config(params),
                streamer=_FirstToken(watch),
                **stops,
            )
        rows: list[list[int]] = output[:, inputs["input_ids"].shape[1] :].tolist()  # waits for the device
        return rows

    def answer(self, row: list[int], params: GenerationParams) -> DecodedRow:
        """Read one row up to its own end: the first end-of-sequence token or stop sequence, whichever is first."""
        end = next((at for at, token in enumerate(row) if token in self._eos), None)
        own = row if end is None else row[: end + 1]
        text = self._decode(own)
        stop = min((at for stop in params.stop_sequences if (at := text.find(stop)) >= 0), default=None)
        if stop is not None:
            return DecodedRow(text=text[:stop], tokens=self._tokens_until_stop(own, params), finish_reason="stop")
        return DecodedRow(text=text, tokens=len(own), finish_reason="length" if end is None else "stop")

    def _tokens_until_stop(self, row: list[int], params: GenerationParams) -> int:
        """Return how many tokens were generated when a stop sequence was complete (bisection over the prefixes)."""
        low, high = 1, len(row)
        while low < high:
            middle = (low + high) // 2
            text = self._decode(row[:middle])
            if any(stop in text for stop in params.stop_sequences):
                high = middle
            else:
                low = middle + 1
        return low

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _generation_config(self, params: GenerationParams) -> "GenerationConfig":
        from transformers import GenerationConfig

        sampling: dict[str, Any] = {"do_sample": False}
        if params.temperature > 0:
            sampling = {
                "do_sample": True,
                "temperature": params.temperature,
                "top_p": params.top_p if params.top_p is not None else 1.0,
                "top_k": params.top_k if params.top_k is not None else 0,
                "num_return_sequences": params.n,
            }
        return GenerationConfig(
            max_new_tokens=params.max_tokens,
            eos_token_id=sorted(self._eos) or None,
            pad_token_id=self._tokenizer.pad_token_id,
            bos_token_id=self._tokenizer.bos_token_id,
            stop_strings=list(params.stop_sequences) or None,
            **sampling,
        )


class _FirstToken:
    """A streamer that only notes when the first new token is there: `generate()` puts the prompt first."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self._saw_prompt = False

    def put(self, _tokens: "torch.Tensor") -> None:
        if self._saw_prompt:
            self._watch.first_token()
        self._saw_prompt = True

    def end(self) -> None:
        """Nothing is left to flush."""


def _end_of_sequence_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Return the ids that end a sequence; chat models have several, named in the checkpoint's generation config."""
    for candidate in (
        model.generation_config.eos_token_id,
        model.config.eos_token_id,
        tokenizer.eos_token_id,
    ):
        if candidate is not None:
            return frozenset(candidate if isinstance(candidate, list | tuple) else [candidate])
    return frozenset()
