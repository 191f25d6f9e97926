"""`peak_gpu_memory_mb`: of a run whose provider can read it, and of no other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.providers.transformers import TransformersProvider
from tests.conftest import Compose
from tests.providers.transformers import planted

pytestmark = pytest.mark.slow


class OnDevice(TransformersProvider):
    """Stands for a provider on a GPU, whose allocator had 12.5 MiB at its peak."""

    def track_gpu_memory(self) -> Callable[[], float] | None:
        return lambda: 12.5


@pytest.mark.parametrize(("kind", "expected"), [(TransformersProvider, {}), (OnDevice, {"peak_gpu_memory_mb": 12.5})])
def test_a_run_has_the_peak_of_its_gpu_and_none_on_a_cpu(
    kind: Any, expected: dict[str, float], config: Compose, tiny_model: Path, tmp_path: Path
):
    few = ("provider.device=cpu", "generation.max_tokens=2", "batch.mode=static", "prompts=memo")
    result = planted.run(kind, config(f"model.id={tiny_model}", *few), tmp_path / "run")
    assert {name: value for name, value in result.metrics.items() if "gpu" in name} == expected


def test_the_allocator_of_a_gpu_has_at_least_the_weights(config: Compose, tiny_model: Path):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA")
    composed = config(f"model.id={tiny_model}", "provider.device=cuda")
    with planted.provider_of(TransformersProvider, composed) as provider:
        read = provider.track_gpu_memory()
        assert read is not None
        weights = sum(weight.nbytes for weight in provider._model.model.parameters())
        assert read() >= weights / 2**20
