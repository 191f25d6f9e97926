"""Imports run one way, and each dangerous package has one owner."""

import ast
import graphlib
from pathlib import Path
from typing import get_args

import pytest

import runner
from runner.config.schema import BatchMode

ROOT = Path(runner.__file__).parent
LEVELS = [
    {"errors", "text", "types"},
    {"config"},
    {"record", "prompts", "pricing", "environment"},
    {"providers"},
    {"dispatch"},
    {"batching"},
    {"metrics"},
    {"tracking", "comparison"},
    {"run"},
    {"app"},
    {"cli", "plan", "models", "resume", "compare", "__main__"},
]
"""A module imports only from its own level or below. Inside a level imports make no cycle."""
OWNERS = {
    "mlflow": {"tracking.store", "tracking.publish", "tracking.traces"},
    "hydra": {"cli.main", "cli.compose", "cli.common", "cli.guard", "cli.hydra_errors", "cli.trust"},
    "omegaconf": {"cli.main", "cli.compose", "cli.common", "cli.foreign", "cli.guard", "cli.hydra_errors"},
    "torch": {"providers.transformers"},
    "transformers": {"providers.transformers"},
    "huggingface_hub": {"providers.transformers"},
    "datasets": {"prompts"},
    "rich": {"cli.terminal"},
    "openai": {"providers.openai", "providers.azure"},
    "openvino": {"providers.openvino"},
    "openvino_genai": {"providers.openvino"},
    "boto3": {"providers.bedrock"},
    "botocore": {"providers.bedrock"},
    "azure": {"providers.azure"},
    "httpx2": {"providers.openai", "providers.azure"},
    "aiohttp": {"providers.openai"},
    "urllib3": {"providers.bedrock"},
    "pyarrow": {"prompts"},
    "requests": {"tracking.store"},
    "sqlalchemy": {"tracking.store"},
    "genai_prices": {"pricing"},
    "tenacity": {"dispatch.limited_provider", "dispatch.retry", "dispatch.blocking_requests"},
    "aiolimiter": {"dispatch.gate"},
    "numpy": {"metrics"},
    "scipy": {"comparison.inference"},
    "rapidfuzz": {
        *("comparison.divergence", "comparison.explain", "comparison.first_difference"),
        "comparison.present.page",
    },
    "matplotlib": {"comparison.present.plots"},
    "jinja2": {"comparison.present.page"},
}
"""Which modules, or packages, may import a dangerous package."""
LAZY = {
    "openai",
    "boto3",
    "botocore",
    "genai_prices",
    "mlflow",
    "torch",
    "transformers",
    "openvino",
    "openvino_genai",
    "datasets",
    "pyarrow",
    "accelerate",
    "matplotlib",
    "jinja2",
}


def modules() -> dict[str, Path]:
    paths = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in ROOT.rglob("*.py")}
    return {name: path for name, path in paths.items() if not name.endswith("__init__")}


def level(name: str) -> int:
    room = name.partition(".")[0]
    for number, rooms in enumerate(LEVELS):
        if room in rooms:
            return number
    raise AssertionError(f"{name} has no level in LEVELS: add its room")


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Return the full names of what a module imports; `from x import y` is both x and x.y."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in tree.body if top_only else list(ast.walk(tree)):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def internal_imports(name: str) -> set[str]:
    internal = {
        imported.removeprefix("runner.") for imported in imports(modules()[name]) if imported.startswith("runner.")
    }
    return internal & modules().keys()


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_its_own_level_or_below(name: str):
    for imported in internal_imports(name):
        assert level(imported) <= level(name), f"{name} imports {imported}, which stands above it"


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: internal_imports(name) for name in modules()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_dangerous_package_is_imported_by_its_owner_only(name: str):
    for imported in imports(modules()[name]):
        owners = OWNERS.get(imported.partition(".")[0])
        assert owners is None or any(f"{name}.".startswith(f"{owner}.") for owner in owners), f"{name}: {imported}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_heavy_package_is_imported_where_it_is_needed_not_at_the_top(name: str):
    assert not {imported.partition(".")[0] for imported in imports(modules()[name], top_only=True)} & LAZY


def test_the_root_holds_at_most_fifteen_modules():
    assert len(list(ROOT.glob("*.py"))) <= 15


@pytest.mark.parametrize("name", sorted(modules()))
def test_only_batching_and_the_schema_compare_a_batch_mode_with_a_string(name: str):
    if name.partition(".")[0] == "batching" or name == "config.schema":
        return
    names = set(get_args(BatchMode))
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            constants = {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)}
            assert not constants & names, f"{name}, line {node.lineno}: ask an attribute of the Mode"


@pytest.mark.parametrize("name", sorted(modules()))
def test_only_batching_finds_out_by_a_protocol_which_modes_a_provider_has(name: str):
    if name.partition(".")[0] == "batching" or name == "dispatch.limited_provider":  # it asserts what it was given
        return
    protocols = {"StaticProvider", "ContinuousProvider", "ConcurrentProvider", "ListProvider"}
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"isinstance", "issubclass"}
        ):
            names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
            assert not names & protocols, f"{name}, line {node.lineno}: ask an attribute of the Mode"


def test_every_module_has_its_line_in_the_architecture():
    text = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [name for name in sorted(modules()) if f"`{name}`" not in text]
    assert not missing, missing
