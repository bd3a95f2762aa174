"""Which kernel is chosen, when none is, and what happens where they cannot run."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from spikeplug import functional, kernels
from spikeplug.errors import SpikeplugError
from spikeplug.kernels import registry
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


def test_a_kernel_is_chosen_where_it_gives_the_operators_bits() -> None:
    assert kernels.find("softmax", (X, -1), Numerics()) is not None
    assert kernels.find("tanh", (X,), Numerics()) is None
    for numerics in (
        PRESETS["paper"].numerics,
        PRESETS["narrow"].numerics,
        Numerics(norm="cordic"),
        Numerics(scale_block=8),
    ):
        assert kernels.find("silu", (X,), numerics) is None
    for x in (X.double(), X[:0], X[0, 0], torch.empty(2, 3, device="meta"), X.as_subclass(torch.nn.Buffer)):
        assert kernels.find("silu", (x,), Numerics()) is None
    assert kernels.find("silu", (torch.nn.Parameter(X),), Numerics()) is not None


def test_closed_forms_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(registry, "loaded", lambda device: {"silu": lambda x, numerics: called.append(x) or x + 1})
    assert torch.equal(functional.silu(X), X + 1)
    with kernels.closed_forms():
        closed = functional.silu(X)
        with ThreadPoolExecutor(1) as pool:  # a block is this thread's
            assert torch.equal(pool.submit(functional.silu, X).result(), X + 1)
    assert len(called) == 2
    assert not torch.equal(closed, X + 1)


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
    from spikeplug.kernels.cpu import launch
    from spikeplug.kernels.cpu.softmax import softmax_kernel

    assert launch._state() in softmax_kernel.__qualname__


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
    with pytest.raises(SpikeplugError, match="working_bits"):
        functional.layer_norm(torch.ones(1, 1 << 19), numerics=Numerics())
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
        from spikeplug.kernels.cpu.softmax import softmax
        from spikeplug.numerics import Numerics
        torch.set_num_threads(2)
        x = torch.randn(600, 300)
        before = softmax(x, numerics=Numerics()).numpy().tobytes()
        child = os.fork()
        if child == 0:
            after = softmax(x, numerics=Numerics()).numpy().tobytes()
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
