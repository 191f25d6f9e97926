"""The reference says what the code and conf/ say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

GENERATOR = Path(__file__).parents[2] / "docs" / "generate.py"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", GENERATOR)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(generator: ModuleType) -> dict[str, str]:
    pages: dict[str, str] = generator.pages()
    return pages


def test_no_page_of_the_reference_is_stale(generator: ModuleType, pages: dict[str, str]):
    assert generator.stale(pages) == [], "make docs"


def test_a_changed_page_is_found_stale(
    generator: ModuleType, pages: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(generator, "REFERENCE", tmp_path)
    for name, text in pages.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert generator.stale(pages) == []
    (tmp_path / "metrics.md").write_text("something else", encoding="utf-8")
    assert generator.stale(pages) == ["metrics.md"]


def test_a_field_without_a_meaning_is_refused(generator: ModuleType):
    with pytest.raises(ValueError, match="token_ids"):
        generator._checked({"text": "the answer"}, ["text", "token_ids"])
