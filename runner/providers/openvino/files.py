"""The files of a model that OpenVINO GenAI loads: a converted folder, or one GGUF file. Loads none."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import ModelError
from runner.providers import embedded
from runner.providers.openvino.gguf import read_metadata

_IR = "openvino_model.xml"
_CONTROL = 3
"""`tokenizer.ggml.token_type` of tokens that are no part of a text."""
_MOSTLY_Q4_1 = 3
"""`general.file_type` of files whose weights openvino-genai 2026.4 rounds: see `ModelFiles.rounds_weights`."""
_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model's files, and what they say of it.

    Attributes:
        path: of the GGUF file, or of the folder.
        context_length: tokens that the model can attend to.
        special_ids: tokens that are no part of a text.
        has_byte_tokens: whether the tokens of a GGUF file are bytes of texts (byte-level BPE).
        rounds_weights: whether the engine changes the weights as it reads them. A block of Q4_1 is
            `scale * q + minimum`; the engine has `scale * (q - zero)`, where zero is a whole number of 4 bits.
    """

    path: Path
    context_length: int
    special_ids: frozenset[int]
    has_byte_tokens: bool = False
    rounds_weights: bool = False

    @property
    def is_gguf(self) -> bool:
        """Whether the model is one GGUF file."""
        return self.path.is_file()


def locate(model_id: str) -> Path:
    """Return the path of a model's GGUF file or converted folder. Reads nothing of it.

    Raises:
        ModelError: there is no such file or folder.
        MissingPackageError: the package with an embedded model's weights is not installed.
    """
    if model_id.startswith(embedded.PREFIX):
        return embedded.gguf_path(embedded.find(model_id))
    path = Path(model_id)
    if (path / _IR).is_file() or (path.is_file() and path.suffix == ".gguf"):
        return path
    raise ModelError(
        f"model.id={model_id!r} is neither a GGUF file (NAME.gguf) nor a folder with {_IR}: convert a model with "
        "`optimum-cli export openvino --model ID FOLDER` (package optimum-intel) and give model.id=FOLDER, or use the "
        "embedded one (model=openvino/default)"
    )


def read(model_id: str) -> ModelFiles:
    """Return a model's files. An embedded model's file is verified.

    Raises:
        ModelError: a file is missing, damaged, or not what was published.
        MissingPackageError: the package with an embedded model's weights is not installed.
    """
    path = locate(model_id)
    if model_id.startswith(embedded.PREFIX):
        path = embedded.verified_gguf_path(embedded.find(model_id))
    return _read_gguf(path) if path.is_file() else _read_folder(path)


def _read_gguf(path: Path) -> ModelFiles:
    metadata = read_metadata(path)
    token_types = metadata.get("tokenizer.ggml.token_type", [])
    return ModelFiles(
        path=path,
        context_length=metadata.get(f"{metadata.get('general.architecture')}.context_length", _NO_LIMIT),
        special_ids=frozenset(token for token, type_ in enumerate(token_types) if type_ == _CONTROL),
        has_byte_tokens=metadata.get("tokenizer.ggml.model") == "gpt2",
        rounds_weights=metadata.get("general.file_type") == _MOSTLY_Q4_1,
    )


def _read_folder(path: Path) -> ModelFiles:
    config = _read_json(path / "config.json")
    added_tokens = _read_json(path / "tokenizer.json").get("added_tokens", [])
    return ModelFiles(
        path=path,
        context_length=config.get("text_config", config).get("max_position_embeddings", _NO_LIMIT),
        special_ids=frozenset(token["id"] for token in added_tokens if token["special"]),
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object; an empty one where there is no file."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{path} is no JSON file: {error}") from error
    return value
