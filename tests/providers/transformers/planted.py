"""Transformers providers whose real tokenizer or model is set up wrongly, and runs that they generate."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.app import _manifest
from runner.config.schema import GenerationParams, RunConfig
from runner.config.waits import Waits
from runner.prompts import load_prompts
from runner.providers.transformers import TransformersProvider
from runner.providers.transformers.causal_lm import CausalLM
from runner.record.folder import RunFolder
from runner.record.writer import OutcomeWriter
from runner.run.execute import execute
from runner.run.prepare import prepare
from runner.run.result import RunResult, SilentObserver
from runner.types import Generated, Prompt

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class RightPaddingTokenizer:
    """A tokenizer that pads on the right, whatever side it is asked for."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def pad(self, encoded: Any, **arguments: Any) -> Any:
        return self._tokenizer.pad(encoded, **arguments | {"padding_side": "right"})


class RightPadding(TransformersProvider):
    """Pads prompts on the right: a shorter prompt of a batch goes on after padding."""

    def _load(self) -> CausalLM:
        loaded = super()._load()
        loaded._tokenizer = RightPaddingTokenizer(loaded._tokenizer)
        return loaded


class EarlyMask(TransformersProvider):
    """Shifts the attention mask one place to the left: a shorter prompt of a batch attends to one padding token."""

    def _load(self) -> CausalLM:
        return _with_mask(super()._load(), _shift_left)


class LateMask(TransformersProvider):
    """Shifts the attention mask one place to the right: a shorter prompt of a batch loses its first token."""

    def _load(self) -> CausalLM:
        return _with_mask(super()._load(), _shift_right)


def _shift_left(mask: "Tensor") -> "Tensor":
    shifted = mask.roll(-1, dims=-1)
    shifted[:, -1] = 1
    return shifted


def _shift_right(mask: "Tensor") -> "Tensor":
    shifted = mask.roll(1, dims=-1)
    shifted[:, 0] = mask[:, 0]  # the longest row has no padding, and keeps its first token
    return shifted


def _with_mask(loaded: CausalLM, shift: Callable[["Tensor"], "Tensor"]) -> CausalLM:
    def shift_mask(
        _model: "Module", arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = named.get("attention_mask")
        return arguments, named if mask is None else named | {"attention_mask": shift(mask)}

    loaded.model.register_forward_pre_hook(shift_mask, with_kwargs=True)
    return loaded


class FirstAnswerForAll(TransformersProvider):
    """Gives the answers of a batch's first prompt to every prompt of the batch."""

    def generate_batch(self, prompts: Sequence[Prompt], params: GenerationParams) -> Sequence[Generated]:
        results = super().generate_batch(prompts, params)
        return [replace(result, answers=results[0].answers) for result in results]


FAULTS = (RightPadding, EarlyMask, LateMask, FirstAnswerForAll)


def provider_of(kind: type[TransformersProvider], config: RunConfig) -> TransformersProvider:
    """Return a provider of this kind with the settings of a configuration."""
    return kind(model=config.model, **config.provider.settings)


def run(kind: type[TransformersProvider], config: RunConfig, folder: Path) -> RunResult:
    """Do what `app.run` does, with a provider of this kind. The record names `runner.providers.transformers`."""
    prompts, record = load_prompts(config.prompts), RunFolder(folder)
    folder.mkdir(parents=True)
    prepared = prepare(config, prompts.prompts, record, Waits())
    provider = provider_of(kind, config)
    prepared = replace(prepared, calls=replace(prepared.calls, provider=provider, callee=provider))
    with OutcomeWriter(record) as writer:
        record.write_config(prepared.config)
        record.write_prompts(prompts.prompts)
        record.write_manifest(_manifest(record, prepared.config, prompts, (), None, {}))
        return execute(prepared, writer, frozenset(), SilentObserver())
