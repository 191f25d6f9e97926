"""Encodes prompts, and generates rows of tokens with a loaded causal language model.

Source: transformers 5.23 `generation/utils.py` (padding, inherited generation configs).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runner.config.schema import GenerationParams
from runner.providers.answer_tokens import AnswerTokens
from runner.providers.transformers.row_ends import RowEnds
from runner.types import Prompt, Stopwatch

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


class PromptEncoder:
    """Encodes prompts: applies the chat template if there is one, then tokenizes.

    Args:
        tokenizer: the model's.
        use_template: apply the tokenizer's chat template where it has one.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, use_template: bool) -> None:
        self.tokenizer = tokenizer
        self.uses_template = use_template and bool(getattr(tokenizer, "chat_template", None))

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the token ids of one prompt, without padding; none for a text that has no UTF-8 encoding."""
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
    """A model with its tokenizer: generates rows of tokens.

    Attributes:
        model: in evaluation mode, on its device.
        context_length: tokens that the model can attend to.
    """

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        self.model = model
        self._tokenizer = tokenizer
        self._eos = _end_of_sequence_ids(model, tokenizer)
        self._special_ids = frozenset(tokenizer.all_special_ids)
        self.context_length = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**62
        # generate() takes every parameter that a call does not set from the checkpoint's generation config (top_k,
        # repetition penalty ...), which is emptied, so that the run's configuration alone decides.
        model.generation_config = type(model.generation_config)()

    def generate(self, encoded: list[list[int]], params: GenerationParams, watch: Stopwatch) -> Sequence[AnswerTokens]:
        """Return the new tokens of `n` adjacent rows per prompt.

        Args:
            encoded: token ids of each prompt, without padding.
            params: how to generate.
            watch: notes the first new token.
        """
        import torch
        from transformers import StoppingCriteriaList

        if not encoded:
            return []
        inputs = self._tokenizer.pad({"input_ids": encoded}, padding_side="left", return_tensors="pt")
        inputs = inputs.to(self.model.device)
        rows = [self._new_row(params) for _ in range(len(encoded) * params.n)]
        ends = RowEnds(rows=rows, prompt_width=inputs["input_ids"].shape[1], watch=watch)
        with torch.inference_mode():
            self.model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                generation_config=self._generation_config(params),
                stopping_criteria=StoppingCriteriaList([ends]),
            )
        return rows

    def _new_row(self, params: GenerationParams) -> AnswerTokens:
        return AnswerTokens(
            end_ids=self._eos,
            special_ids=self._special_ids,
            stop_sequences=params.stop_sequences,
            decode=self._text,
        )

    def _text(self, tokens: list[int]) -> str:
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
            **sampling,
        )


def _end_of_sequence_ids(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> frozenset[int]:
    """Return the ids that end a sequence; the generation config of a chat model's checkpoint names several."""
    for candidate in (
        model.generation_config.eos_token_id,
        model.config.eos_token_id,
        tokenizer.eos_token_id,
    ):
        if candidate is not None:
            return frozenset(candidate if isinstance(candidate, list | tuple) else [candidate])
    return frozenset()
