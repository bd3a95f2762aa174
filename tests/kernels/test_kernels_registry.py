"""Which kernel is chosen, when none is, and what happens where they cannot run."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from spikeplug import functional, kernels
from spikeplug.errors import SpikeplugError
from spikeplug.kernels import Call, registry
from spikeplug.kernels.protocol import EVERY_ROW
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS

X = torch.randn(40, 300, generator=torch.Generator().manual_seed(0))


def run(code: str, **environment: str) -> str:
    import os

    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout + found.stderr


def explained(name: str, *arguments: object, numerics: Numerics | None = None, **after: torch.Tensor) -> str:
    return kernels.explain(Call(name, arguments, numerics or Numerics(), **after))


def test_a_kernel_is_chosen_where_it_gives_the_operators_bits() -> None:
    assert explained("softmax", X, -1) == "Numba softmax"
    assert explained("silu", torch.nn.Parameter(X)) == "Numba silu"
    assert explained("tanh", X) == "closed form: tanh has no kernel on cpu"


@pytest.mark.parametrize(
    ("numerics", "reason"),
    [
        (PRESETS["paper"].numerics, "exponential='piecewise'; kernels take 'shift'"),
        (PRESETS["narrow"].numerics, "input_bits=8; kernels take None"),
        (Numerics(norm="cordic"), "norm='cordic'; kernels take 'root'"),
        (Numerics(scale_block=8), "scale_block=8; kernels take None"),
        (Numerics(shift_scaling=False, divide_last=False), "shift_scaling=False; kernels take True"),
    ],
    ids=str,
)
def test_other_numerics_are_a_reason(numerics: Numerics, reason: str) -> None:
    assert explained("silu", X, numerics=numerics) == f"closed form: the numerics have {reason}"


def test_other_tensors_are_a_reason() -> None:
    reasons = {
        "kernels take float32, bfloat16 and float16, not float64": X.double(),
        "a tensor has no elements": X[:0],
        "a scalar has no row": X[0, 0],
        "there are no kernels for meta": torch.empty(2, 3, device="meta"),
        "kernels take plain tensors, not a Buffer": X.as_subclass(torch.nn.Buffer),
    }
    for reason, x in reasons.items():
        assert explained("silu", x) == f"closed form: {reason}"
    with kernels.closed_forms():
        assert explained("silu", X) == "closed form: closed forms were asked for"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"softcap": 3.0}, "there is a softcap"),
        (
            {"numerics": Numerics(query_key_bits=None)},
            "the numerics have query_key_bits=None; the kernel takes an integer",
        ),
        ({"numerics": Numerics(bits=17)}, "codes have more than 16 bits"),
        ({"numerics": Numerics(divide_last=False)}, "the numerics have divide_last=False; the kernel takes True"),
        (
            {"numerics": Numerics(bits=16, working_bits=24), "keys": (1 << 14) + 1},
            "sums over 16385 keys do not fit 53 bits",
        ),
        ({"dtype": torch.int64}, "keys and values are neither floating-point nor packed"),
    ],
    ids=str,
)
def test_attentions_reasons(change: dict[str, Any], reason: str) -> None:
    query, key = torch.ones(1, 1, 1, 4), torch.ones(1, 1, change.get("keys", 3), 4, dtype=change.get("dtype"))
    found = explained(
        "attention", query, key, key, None, None, change.get("softcap"), None, numerics=change.get("numerics")
    )
    assert found == f"closed form: {reason}"


def test_a_weight_that_a_kernel_cannot_apply_does_not_keep_it_from_running() -> None:
    for weight in (X.half(), X[0], torch.ones(3, 40, 300)):
        assert explained("silu", X, weight=weight) == "Numba silu"
    assert explained("silu", X, weight=X, bias=X) == "Numba silu"
    assert explained("softmax", X, -1, weight=X) == "Numba softmax"


class Fake:
    """A kernel that adds 1, but leaves some rows."""

    def __init__(self, rare: torch.Tensor | None = None) -> None:
        self.called, self.rare = 0, rare

    def supports(self, call: Call) -> str | None:
        return None

    def run(self, call: Call) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.called += 1
        return call.arguments[0] + 1, self.rare


def test_closed_forms_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(registry, "loaded", lambda device: {"silu": fake})
    assert torch.equal(functional.silu(X), X + 1)
    with kernels.closed_forms():
        closed = functional.silu(X)
        with ThreadPoolExecutor(1) as pool:  # a block is this thread's
            assert torch.equal(pool.submit(functional.silu, X).result(), X + 1)
    assert fake.called == 2
    assert not torch.equal(closed, X + 1)


def test_the_closed_form_runs_rare_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rare = torch.arange(40) % 3 == 0
    closed = functional.silu(X)
    for marks, expected in (
        (rare, torch.where(rare[:, None], closed, X + 1)),
        (torch.zeros(40, dtype=torch.bool), X + 1),
        (torch.ones(40, dtype=torch.bool), closed),
        (EVERY_ROW, closed),
    ):
        monkeypatch.setattr(registry, "loaded", lambda device, marks=marks: {"silu": Fake(marks)})
        assert torch.equal(functional.silu(X), expected)


def test_closed_forms_for_a_whole_process() -> None:
    code = """
        import torch
        from spikeplug import functional
        import sys
        functional.silu(torch.ones(3))
        print("numba" in sys.modules)
    """
    assert run(code, SPIKEPLUG_KERNELS="off").strip() == "False"
    assert run(code).strip() == "True"


def test_an_unknown_word_for_it_is_refused() -> None:
    with pytest.raises(AssertionError, match="SPIKEPLUG_KERNELS is 'maybe'; set it to on or off"):
        run("import spikeplug.kernels", SPIKEPLUG_KERNELS="maybe")


def test_without_a_compiler_the_closed_forms_run() -> None:
    printed = run(
        "import torch; from spikeplug import functional; print(functional.silu(torch.ones(2)).shape)",
        NUMBA_DISABLE_JIT="1",
    )
    assert "torch.Size([2])" in printed
    assert "NUMBA_DISABLE_JIT is set" in printed


def test_code_of_other_sources_is_not_taken_from_the_cache() -> None:
    """Numba looks at a kernel's own file only; what else it is made of is in its name."""
    from spikeplug.kernels.cpu.compile import state_of_sources
    from spikeplug.kernels.cpu.softmax import softmax_kernel

    assert state_of_sources() in softmax_kernel.__qualname__


def test_without_numba_the_closed_forms_run_and_it_is_said_once() -> None:
    printed = run(
        """
        import sys, torch
        sys.modules["numba"] = None
        from spikeplug import functional
        a, b = functional.silu(torch.ones(3)), functional.softmax(torch.ones(3))
        print(a.shape, b.shape)
        """
    )
    assert printed.count("RuntimeWarning") == 1
    assert "pip install numba" in printed
    assert "torch.Size([3]) torch.Size([3])" in printed


def test_bad_arguments_are_refused_in_the_operators_words() -> None:
    with pytest.raises(SpikeplugError, match="dim=5"):
        functional.softmax(X, 5)
    with pytest.raises(SpikeplugError, match="approximate='fast'"):
        functional.gelu(X, "fast")
    with pytest.raises(SpikeplugError, match="eps=-1"):
        functional.rms_norm(X, eps=-1)
    with pytest.raises(SpikeplugError, match="does not broadcast"):
        functional.attention(*[torch.ones(1, 1, 4, 8)] * 3, torch.ones(3, 3, dtype=torch.bool))


def test_several_threads_at_once() -> None:
    x = torch.randn(500, 700, generator=torch.Generator().manual_seed(1))
    expected = functional.softmax(x), functional.silu(x), functional.rms_norm(x)

    def work(_: int) -> bool:
        found = functional.softmax(x), functional.silu(x), functional.rms_norm(x)
        return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(24)))


def test_a_fork_after_use_goes_on() -> None:
    """In the child, GNU's OpenMP would wait for threads that are not there."""
    printed = run(
        """
        import os, sys, torch
        from spikeplug.functional import softmax
        torch.set_num_threads(2)
        x = torch.randn(600, 300)
        before = softmax(x).numpy().tobytes()
        child = os.fork()
        if child == 0:
            after = softmax(x).numpy().tobytes()
            os._exit(0 if after == before else 7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert printed.strip() == "0"


def test_without_torchs_openmp_threads_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from spikeplug.kernels.cpu import launch

    x = torch.randn(600, 300, generator=torch.Generator().manual_seed(2))
    expected = functional.softmax(x)
    monkeypatch.setattr(launch, "_openmp", lambda: None)
    assert torch.equal(functional.softmax(x), expected)


def test_where_nothing_can_be_kept_on_disk() -> None:
    printed = run(
        """
        import numba, torch
        from numba.core import caching
        caching.CacheImpl._locator_classes = []
        from spikeplug import functional
        print(functional.softmax(torch.ones(4)).tolist())
        """
    )
    assert "[0.25, 0.25, 0.25, 0.25]" in printed
