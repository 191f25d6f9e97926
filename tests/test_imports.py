"""Imports run one way, and each dangerous package has one owner."""

import ast
from pathlib import Path

import pytest

import runner

ROOT = Path(runner.__file__).parent
LAYERS = [
    {"errors", "records", "credentials", "window", "jsonl", "interrupts"},
    {"config"},
    {"descriptors", "prompts", "environment", "runfiles", "journal", "pricing", "tracking.address"},
    {"providers.base", "providers._embedded", "providers._causal_lm"},
    {"providers"},
    {"budget", "call"},
    {"admission"},
    {"batching", "pacing"},
    {"metrics"},
    {"tracking.store", "tracking.traces", "tracking.sweep"},
    {"display", "tracking", "comparison"},
    {"sweep"},
    {"execution"},
    {"app"},
    {"hydra_errors"},
    {"commandline"},
    {"commands"},
    {"plan", "models", "resume", "compare"},
    {"__main__"},
]
OWNERS = {
    "mlflow": {"tracking.store", "tracking.run", "tracking.traces"},
    "hydra": {"commandline", "hydra_errors"},
    "omegaconf": {"commandline", "hydra_errors"},
    "torch": {"providers.transformers", "providers._causal_lm", "providers._embedded"},
    "transformers": {"providers.transformers", "providers._causal_lm", "providers._embedded"},
    "datasets": {"prompts"},
    "rich": {"display"},
    "openai": {"providers.openai", "providers.azure", "providers._openai_errors"},
    "boto3": {"providers.bedrock"},
    "botocore": {"providers.bedrock", "providers._bedrock_errors"},
    "azure": {"providers.azure"},
    "httpx2": {"providers.openai", "providers.azure", "providers._openai_errors"},
    "aiohttp": {"providers.openai", "providers._openai_errors"},
    "urllib3": {"providers._bedrock_errors"},
    "pyarrow": {"prompts"},
    "requests": {"tracking.store"},
    "sqlalchemy": {"tracking.store"},
    "genai_prices": {"pricing"},
    "tenacity": {"pacing"},
    "numpy": {"metrics"},
    "rapidfuzz": {"comparison.divergence", "comparison.report"},
    "matplotlib": {"comparison.plots"},
    "jinja2": {"comparison.report"},
}
LAZY = {
    "openai",
    "boto3",
    "botocore",
    "genai_prices",
    "mlflow",
    "torch",
    "transformers",
    "datasets",
    "pyarrow",
    "accelerate",
    "matplotlib",
    "jinja2",
}


def modules() -> dict[str, Path]:
    found = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in ROOT.rglob("*.py")}
    return {name: path for name, path in found.items() if not name.endswith("__init__")}


def layer(name: str) -> int:
    for known in (name, name.partition(".")[0]):
        for number, members in enumerate(LAYERS):
            if known in members:
                return number
    raise AssertionError(f"{name} has no place in the order of imports: give it one")


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    nodes = tree.body if top_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "runner" else {node.module}
            )
            if node.module in ("runner.providers", "runner.batching", "runner.comparison", "runner.tracking"):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_its_own_layer_or_below(name: str):
    for imported in imports(modules()[name]):
        if imported.startswith("runner."):
            target = imported.removeprefix("runner.")
            if target in modules():
                assert layer(target) <= layer(name), f"{name} imports {target}, which stands above it"


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_dangerous_package_is_imported_by_its_owner_only(name: str):
    for imported in imports(modules()[name]):
        owners = OWNERS.get(imported.partition(".")[0])
        assert owners is None or name in owners, f"{name} imports {imported}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_heavy_package_is_imported_where_it_is_needed_not_at_the_top(name: str):
    assert not {imported.partition(".")[0] for imported in imports(modules()[name], top_only=True)} & LAZY


def test_the_readme_has_a_place_for_every_module():
    tree = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in ROOT.rglob("*.py") if path.name != "__init__.py"}
    assert not [name for name in sorted(files) if name not in tree]
