"""`import spikeplug` is enough: for exported files, for every name of the pages, and without importing torch itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import spikeplug
from spikeplug import functional

ROOT = Path(__file__).parents[1]


def run(program: str, *arguments: str, **environment: str) -> str:
    """Return what a program prints in a new process, without GOMP_SPINCOUNT but for `environment`."""
    variables = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | environment
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=variables,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() + done.stderr.strip()


class Model(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.softmax(functional.gelu(x))


LOAD = "program = torch.export.load(sys.argv[1]).module()"


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import spikeplug, torch",
        "import torch, spikeplug",
        "import spikeplug.saturation, torch",  # which imports torch itself, and is imported by the operators
        "import spikeplug.codes, torch",
        "import spikeplug.errors, torch",
        "import spikeplug; spikeplug.saturations(); import torch",
        "import spikeplug.conversion, torch",
        "import torch, spikeplug.conversion",
        "import torch, spikeplug; from transformers import AutoModelForCausalLM; import spikeplug.conversion",
        "import transformers.modeling_utils, spikeplug.conversion, torch",
    ],
)
def test_an_exported_file_runs_after_import_spikeplug_alone(tmp_path: Path, imports: str) -> None:
    x = torch.randn(2, 5)
    torch.export.save(torch.export.export(Model(), (x,)), tmp_path / "model.pt2")
    torch.save((x, Model()(x)), tmp_path / "expected.pt")
    program = f"""
import sys
{imports}
{LOAD}
x, y = torch.load(sys.argv[2])
print(torch.equal(program(x), y), len([finder for finder in sys.meta_path if "spikeplug" in type(finder).__module__]))
"""
    left = "0" if "conversion" in imports else "1"  # one goes on looking for transformers
    assert run(program, str(tmp_path / "model.pt2"), str(tmp_path / "expected.pt")) == f"True {left}"


@pytest.mark.slow
def test_the_operators_are_registered_where_torch_is_imported_later() -> None:
    program = "import spikeplug, torch; print(torch._C._dispatch_has_kernel('spikeplug::softmax'))"
    assert run(program) == "True"


def test_neither_torch_nor_transformers_is_imported() -> None:
    loaded = "{'torch', 'transformers', 'numpy'} & set(sys.modules)"
    program = f"import sys, spikeplug; print({loaded}, 'kernels' in dir(spikeplug))"
    assert run(program) == "set() True"


def names_of_the_pages() -> list[str]:
    """Return every dotted name that begins with `spikeplug.` in the README and in docs, in code of any kind."""
    found: set[str] = set()
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = re.sub(r"\]\([^)]*\)", "]", page.read_text(encoding="utf-8"))  # without the targets of links
        found |= set(re.findall(r"(?<![\w./])spikeplug(?:\.[A-Za-z]\w*)+", text))
    return sorted(found)


@pytest.mark.slow
def test_every_name_of_the_pages_is_found_after_import_spikeplug() -> None:
    names = [name for name in names_of_the_pages() if name != "spikeplug.nn.Hardswish"]  # the recipe's example
    assert {"spikeplug.kernels.closed_forms", "spikeplug.evaluation.schema"} <= set(names)
    program = """
import functools, spikeplug, sys
def there(name):
    try:
        functools.reduce(getattr, name.split(".")[1:], spikeplug)
    except AttributeError:
        return False
    except spikeplug.SpikeplugError as error:
        assert "not installed" in str(error)
    return True
print([name for name in sys.argv[1:] if not there(name)])
"""
    assert run(program, *names) == "[]"


def test_every_module_is_an_attribute() -> None:
    folder = Path(spikeplug.__file__).parent
    modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert modules - {"__init__", "__main__", "lazy"} == spikeplug._MODULES
    assert set(dir(spikeplug)) >= spikeplug._MODULES
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        spikeplug.nothing  # noqa: B018


SIMULATE = """
torch.set_num_threads(2)
for _ in range(2):
    spikeplug.functional.softmax(torch.ones(1, 2), events=spikeplug.Events())
"""


@pytest.mark.slow
def test_waiting_threads_do_not_spin_or_it_is_said_once() -> None:
    assert run(f"import os, spikeplug, torch; print(os.environ['GOMP_SPINCOUNT']){SIMULATE}") == "10000"
    assert run("import os, spikeplug; print(os.environ['GOMP_SPINCOUNT'])", GOMP_SPINCOUNT="7") == "7"
    late = run(f"import torch, spikeplug{SIMULATE}")
    assert late.count("import spikeplug first, or set GOMP_SPINCOUNT=10000.") == 1
    assert run(f"import torch, spikeplug{SIMULATE}", GOMP_SPINCOUNT="10000") == ""
    assert run(f"import torch, spikeplug{SIMULATE}", OMP_WAIT_POLICY="passive") == ""
