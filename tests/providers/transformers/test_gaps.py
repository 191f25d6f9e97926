"""Gaps between two next tokens, and how far rounding moves them, against the model called by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import ModelError
from runner.providers.factory import build
from runner.providers.protocols import Continuation, GapProvider
from runner.providers.transformers import TransformersProvider
from runner.providers.transformers.gaps import measure_gap_changes
from tests.conftest import Compose
from tests.factories import prompts

PREFIX, NEW = "some words", [11, 7, 80, 2]
"""Letters are tokens of the tiny model, whatever they mean to it."""


def loaded(config: Compose, folder: Path, dtype: str) -> TransformersProvider:
    provider = build(config(f"model.id={folder}", f"provider.dtype={dtype}", "provider.device=cpu"))
    assert isinstance(provider, TransformersProvider)
    return provider


@pytest.fixture
def provider(config: Compose, tiny_model: Path) -> Iterator[TransformersProvider]:
    with loaded(config, tiny_model, "float32") as provider:
        yield provider


def continuation(*new: int) -> Continuation:
    return Continuation(prompt=prompts(PREFIX)[0], token_ids=new)


def test_a_model_without_a_cache_of_keys_and_values_is_one_message():
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=16, hidden_size=8, state_size=4, num_hidden_layers=1, time_step_rank=2)
    model = MambaForCausalLM(config).eval()
    with pytest.raises(ModelError, match="margins of this model cannot be measured on this machine: "):
        measure_gap_changes(model, [1, 2], [3, 4], copies=2)


def test_a_gap_is_the_difference_of_two_logits_after_the_prefix(provider: TransformersProvider, tiny_model: Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(tiny_model)(PREFIX)["input_ids"] + NEW
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(tiny_model)(torch.tensor([ids])).logits[0, -1]
    assert isinstance(provider, GapProvider)
    gap = provider.gap(continuation(*NEW), 5, 9)
    assert gap == pytest.approx(float(logits[5] - logits[9]), abs=1e-5)
    assert provider.gap(continuation(*NEW), 9, 5) == -gap


def test_every_new_token_has_a_change_and_in_float32_it_is_of_the_size_of_rounding(provider: TransformersProvider):
    changes = provider.gap_changes(continuation(*NEW * 10), copies=4)
    assert len(changes) == 40
    assert max(changes) < 1e-4, "cache, prefix and positions of the two ways agree"
    assert max(changes) > 0, "two ways of adding do not round alike"


def test_bfloat16_moves_a_gap_a_thousand_times_farther_than_float32(
    provider: TransformersProvider, config: Compose, tiny_model: Path
):
    """Its mantissa has 8 bits for 24, hence a rounding error 2^16 times as large."""
    exact = max(provider.gap_changes(continuation(*NEW * 10), copies=4))
    with loaded(config, tiny_model, "bfloat16") as rough:
        assert max(rough.gap_changes(continuation(*NEW * 10), copies=4)) > 1000 * exact
