"""What the providers of models in this process share: the prompts and values that they refuse, and their seeds."""

import hashlib
from collections.abc import Iterable

from runner.config.schema import GenerationParams
from runner.errors import ConfigError
from runner.providers.errors import UNSENDABLE, invalid_utf8
from runner.types import ErrorInfo, Prompt


def refuse_greedy_copies(params: GenerationParams) -> None:
    """Raise ConfigError for several answers to a prompt without sampling: all would be the same text."""
    if params.n > 1 and params.temperature == 0:
        raise ConfigError(
            f"generation.n={params.n} with temperature=0: greedy gives the same text {params.n} times: "
            "set generation.temperature above 0 or generation.n=1"
        )


def prompt_error(
    prompt: Prompt, input_tokens: int, params: GenerationParams, *, context_length: int, model_id: str
) -> ErrorInfo | None:
    """Return why a model cannot answer a prompt of so many tokens; None if it can.

    Args:
        context_length: tokens that the model can attend to.
        model_id: for the message.
    """
    if 0 < input_tokens <= context_length - params.max_tokens:
        return None
    if input_tokens:
        message = (
            f"{input_tokens} input tokens and generation.max_tokens={params.max_tokens} are more than the "
            f"{context_length} that model {model_id!r} can attend to"
        )
        return ErrorInfo(type="ContextLengthExceeded", message=message, retryable=False)
    message = "the tokenizer makes no token of the prompt"
    try:
        prompt.text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = invalid_utf8(error)
    return ErrorInfo(type=UNSENDABLE, message=message, retryable=False)


def derive_seed(run_seed: int, names: Iterable[str]) -> int:
    """Return a seed (32 bits) that follows from the run's seed and names, such as the ids of a batch's prompts."""
    digest = hashlib.sha256(str(run_seed).encode())
    for name in names:
        digest.update(b"\0" + name.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest()[:4], "big")
