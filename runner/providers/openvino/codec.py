"""Prompts to token ids and token ids to text, with OpenVINO GenAI's tokenizer and the model's chat template."""

from typing import TYPE_CHECKING

from runner.providers.openvino.files import ModelFiles
from runner.types import Prompt

if TYPE_CHECKING:
    from openvino import Tensor
    from openvino_genai import Tokenizer


class Codec:
    """The tokenizer of a model.

    Args:
        tokenizer: OpenVINO GenAI's.
        files: the model's.
        use_template: apply the model's chat template where it has one.

    Attributes:
        uses_template: whether prompts take the chat template.
        special_ids: tokens that are no part of a text.
    """

    def __init__(self, tokenizer: "Tokenizer", files: ModelFiles, *, use_template: bool) -> None:
        self._tokenizer = tokenizer
        self.uses_template = use_template and bool(tokenizer.chat_template)
        self.special_ids = files.special_ids
        # The detokenizer that openvino-genai 2026.4 makes of a GGUF file drops bytes that are no UTF-8, such as the
        # first ones of an emoji that max_tokens cuts. That of a converted folder has U+FFFD for them, as others have.
        vocabulary = tokenizer.get_vocab() if files.has_byte_tokens else {}
        self._bytes: dict[int, bytes] = {token: piece for piece, token in vocabulary.items()}

    def encode(self, prompt: Prompt) -> "Tensor":
        """Return the token ids of one prompt, of shape (1, tokens); no tokens for a text without UTF-8 encoding."""
        if not _is_utf8(prompt.text):
            return self._encode("", add_special_tokens=False)
        if not self.uses_template:
            return self._encode(prompt.text, add_special_tokens=True)
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        return self._encode(text, add_special_tokens=False)

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of tokens, without special ones; bytes that are no UTF-8 become U+FFFD."""
        if not self._bytes:
            text: str = self._tokenizer.decode(token_ids)
            return text
        pieces = (self._bytes[token] for token in token_ids if token not in self.special_ids)
        return b"".join(pieces).decode("utf-8", "replace")

    def _encode(self, text: str, *, add_special_tokens: bool) -> "Tensor":
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).input_ids


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
