"""No GPU kernel makes the host wait for the device, whatever the input: so a CUDA graph can hold it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_kernel_cases import DEVICE, rows, seeded
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spikeplug import functional
from spikeplug.kernels.gpu import KERNELS
from spikeplug.library import OPERATORS
from spikeplug.saturation import reset_saturations, saturations

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
#: ATen's operations whose result the host reads, or whose shape depends on values.
WAITING = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select", "unique", "bincount"}
X, WEIGHT = rows(torch.float32, 40), seeded(40).to(DEVICE)
QUERY, KEY, VALUE = (seeded(2, heads, 9, 16, seed=heads).to(DEVICE) for heads in (4, 2, 2))
QUERY[0, 0, 0, 0], KEY[1, 1, 2, 3], VALUE[0, 1, 4, 5], QUERY[1, 2, 3] = torch.nan, torch.inf, -torch.inf, 1e30
MASK = torch.ones(9, 9, dtype=torch.bool, device=DEVICE).tril()
BYTES = (OPERATORS["quantise"](KEY, 127, 0, 0, True), OPERATORS["quantise"](VALUE, 127, 0, 0, True))
LAYER = (
    torch.randint(-128, 128, (7, 40), dtype=torch.int8, generator=torch.Generator().manual_seed(0)).to(DEVICE),
    torch.arange(7, dtype=torch.int32, device=DEVICE),
    torch.tensor(-9, dtype=torch.int32, device=DEVICE),
)
BIAS = torch.tensor([0.0, 1, -2, 3, torch.inf, 5, -6], device=DEVICE)
COUNTS = torch.arange(1, 10, device=DEVICE).view(9, 1)
CALLS: dict[str, Callable[[], Tensor]] = {
    "softmax": lambda: functional.softmax(X),
    "softmax, dim 0": lambda: functional.softmax(X, 0),
    "silu": lambda: functional.silu(X),
    "silu, weight": lambda: functional.swiglu(X, X.half()),
    "sigmoid": lambda: functional.sigmoid(X),
    "gelu": lambda: functional.gelu(X),
    "rms_norm": lambda: functional.rms_norm(X, WEIGHT),
    "layer_norm": lambda: functional.layer_norm(X, WEIGHT, WEIGHT),
    "attention": lambda: functional.attention(QUERY, KEY, VALUE, MASK),
    "attention, counts": lambda: functional.attention(QUERY, KEY, VALUE, COUNTS),
    "attention, no mask": lambda: functional.attention(QUERY, KEY, VALUE),
    "attention, bytes": lambda: OPERATORS["attention"](QUERY, *BYTES, MASK, None, None, None),
    "linear": lambda: OPERATORS["linear"](X, *LAYER, None, 256, 32, 0),
    "linear, bias": lambda: OPERATORS["linear"](X, *LAYER, BIAS, 127, 0, 20),
    "add": lambda: OPERATORS["add"](X, WEIGHT),
    "multiply": lambda: OPERATORS["multiply"](X, WEIGHT),
    "quantise": lambda: OPERATORS["quantise"](X, 127, 32, 0, False),
    "quantise, bytes": lambda: OPERATORS["quantise"](X, 127, 0, 20, True),
}


class Watch(TorchDispatchMode):
    """Sees every operation inside our own ops too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func.overloadpacket._qualified_op_name.partition("::")
        if namespace == "spikeplug":
            with self:
                return OPERATORS[name].kernel(*args)
        self.seen.add(name)
        return func(*args, **(kwargs or {}))


def test_every_kernel_is_called() -> None:
    assert KERNELS.keys() <= {name.split(",")[0] for name in CALLS}


@pytest.mark.parametrize("name", CALLS)
def test_the_host_never_waits(name: str) -> None:
    CALLS[name]()  # makes tables, which takes copies
    with Watch() as watch:
        CALLS[name]()
    assert watch.seen
    assert watch.seen & WAITING == set()


def test_the_watch_sees_who_waits() -> None:
    with Watch() as watch:
        assert bool((X == X).any())
    assert watch.seen & WAITING


@pytest.mark.skipif(DEVICE == "cpu", reason="there are no CUDA graphs without a GPU")
@pytest.mark.parametrize("name", CALLS)
def test_a_cuda_graph_holds_the_kernel_and_each_replay_counts(name: str) -> None:
    reset_saturations()
    expected = CALLS[name]()
    once = saturations()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        CALLS[name]()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = CALLS[name]()
    reset_saturations()
    for _ in range(3):
        graph.replay()
    assert torch.equal(output.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert saturations() == {event: 3 * count for event, count in once.items()}
