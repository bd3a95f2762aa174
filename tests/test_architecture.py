"""The house keeps its shape: imports run downward, files stay small, public names resolve."""

from __future__ import annotations

import ast
from pathlib import Path

import spikeplug

ROOT = Path(__file__).parents[1] / "src" / "spikeplug"
# Bottom to top; a room may import its own files and rooms before it.
ROOMS = [
    "errors",
    "numerics",
    "presets",
    "saturation",
    "fixedpoint",
    "coding",
    "neurons",
    "primitives",
    "operators",
    "kernels",
    "library",
    "functional",
    "nn",
    "conversion",
    "evaluation",
    "harness",
    "evidence",
    "report",
    "bench",
    "cli",
    "__main__",
]


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "spikeplug" else {node.module}
            )
    return {name for name in names if name.startswith("spikeplug.")}


def files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def test_every_file_is_in_a_room() -> None:
    assert {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in files()} == set(ROOMS)


def test_imports_run_downward() -> None:
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files()
        for name in imported(path)
        if ROOMS.index(room(name)) > ROOMS.index(path.relative_to(ROOT).parts[0].removesuffix(".py"))
    ]
    assert not upward


def test_files_stay_small() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    assert {name: lines for name, lines in long.items() if lines > 250} == {}


def test_the_page_of_the_architecture_names_every_room() -> None:
    page = (ROOT.parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for name in ROOMS:
        if name != "__main__":
            assert name in page, name


def test_public_names_resolve() -> None:
    for name in spikeplug.__all__:
        assert getattr(spikeplug, name) is not None
    assert set(spikeplug.__all__) <= set(dir(spikeplug))
