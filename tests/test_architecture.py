"""Imports run downward, what the measuring commands share lies below them, and public names resolve."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import spikeplug

ROOT = Path(__file__).parents[1] / "src" / "spikeplug"
# Bottom to top: a layer may import its own files and the layers before it.
LAYERS = [
    "errors",
    "memory",
    "progress",
    "english",
    "lazy",
    "numerics",
    "realisation",
    "presets",
    "saturation",
    "fixedpoint",
    "hadamard",
    "codes",
    "neurons",
    "circuit",
    "primitives",
    "operators",
    "kernels",
    "library",
    "functional",
    "nn",
    "weights",
    "conversion",
    "measurement",
    "hardware",
    "evaluation",
    "harness",
    "evidence",
    "report",
    "bench",
    "cli",
    "__main__",
]
# They share `measurement` and import nothing of each other. One exception: bench times the baselines of evidence.
MEASURING = ("evaluation", "harness", "evidence", "report", "bench")
ALLOWED = {("bench", "spikeplug.evidence.baselines")}


def layer(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "spikeplug" else {node.module}
            )
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            names |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return {name for name in names if name.startswith("spikeplug.")}


def files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def test_every_file_is_in_a_layer() -> None:
    assert {layer_of(path) for path in files()} == set(LAYERS)


def test_imports_run_downward() -> None:
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files()
        for name in imported(path)
        if LAYERS.index(layer(name)) > LAYERS.index(layer_of(path))
    ]
    assert not upward


def test_measuring_packages_share_only_their_floor() -> None:
    sideways = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files()
        for name in imported(path)
        if layer_of(path) in MEASURING
        and layer(name) in MEASURING
        and layer(name) != layer_of(path)
        and (layer_of(path), name) not in ALLOWED
    ]
    assert not sideways


def test_the_page_of_the_architecture_names_every_layer() -> None:
    page = (ROOT.parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for name in LAYERS:
        if name != "__main__":
            assert name in page, name


@pytest.mark.parametrize("name", ["spikeplug", *(f"spikeplug.{name}" for name in ("evaluation", "report", "bench"))])
def test_public_names_resolve(name: str) -> None:
    package = import_module(name)
    for public in package.__all__:
        assert getattr(package, public) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        package.nonsense  # noqa: B018
    assert set(spikeplug.__all__) <= set(dir(spikeplug))
