"""Links of the documentation resolve, and names in it exist."""

import importlib.util
import re
from pathlib import Path

import pytest

from runner.cli.compose import compose_config

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "outputs" / "README.md",
    ]
)
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # a changelog names what there was
KEYS = compose_config([]).flat().keys()
ROOMS = sorted(path.parent.name for path in (ROOT / "runner").glob("*/__init__.py"))
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?:runner|conf|docs|tests|benchmarks)/[a-z][\w./-]*")
COMMAND = re.compile(r"python -m ((?:runner|benchmarks)[\w.]*)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_resolves(page: Path):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)}: {link}"


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_every_path_that_a_page_names_exists(page: Path):
    for code in CODE.findall(page.read_text(encoding="utf-8")):
        if PATH.fullmatch(code) and "NAME" not in code:
            assert (ROOT / code).exists(), f"{name(page)}: {code}"
        elif re.fullmatch(r"[a-z_/]+\.py", code):
            assert list((ROOT / "runner").rglob(code)), f"{name(page)}: {code}"


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_every_module_that_a_page_names_exists(page: Path):
    for code in CODE.findall(page.read_text(encoding="utf-8")):
        room, *rest = code.split(".")
        if (
            room not in ROOMS
            or not rest
            or code in KEYS
            or code.endswith(".py")
            or not re.fullmatch(r"[a-z_][\w.]*", code)
        ):
            continue
        is_file = rest[-1] in ("hmac", "html", "json", "jsonl", "yaml", "lock")
        assert is_file or is_in_code(code), f"{name(page)}: {code}"


def is_in_code(dotted: str) -> bool:
    """Return whether this is a module or package of runner, or a name that one of them has."""
    module, _, attribute = dotted.rpartition(".")
    path = ROOT / "runner" / Path(*dotted.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    of = ROOT / "runner" / Path(*module.split("."))
    source = of.with_suffix(".py") if of.with_suffix(".py").is_file() else of / "__init__.py"
    return source.is_file() and re.search(rf"\b{attribute}\b", source.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_every_command_that_a_page_names_exists(page: Path):
    for module in COMMAND.findall(page.read_text(encoding="utf-8")):
        if not module.endswith("X"):  # a placeholder
            assert importlib.util.find_spec(module.rstrip(".")) is not None, f"{name(page)}: python -m {module}"
