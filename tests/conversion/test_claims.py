"""Test that report, strict and audit agree: strict accepts no float nonlinearity, and the report names what is left."""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import exp as number_exp

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from spikeplug.conversion import Report, audit, convert, revert
from spikeplug.errors import SpikeplugError

X = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) + 0.25
Y = torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) + 0.25
CLASSES = torch.tensor([0, 3, 1, 1])


def _scripted() -> Callable[[Tensor], Tensor]:
    def scripted(x: Tensor) -> Tensor:
        return torch.exp(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.script(scripted)  # type: ignore[no-any-return]


SCRIPTED = _scripted()


def helper(x: Tensor, factor: float = 2.0) -> Tensor:
    return torch.tanh(x) * factor


def in_thread(x: Tensor) -> Tensor:
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(x.exp()))
    thread.start()
    thread.join()
    return found[0]


def in_pool(x: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.exp, x).result()


def closure(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x)


def numpy_inside(x: Tensor) -> Tensor:
    import numpy as other

    return torch.as_tensor(other.exp(x.numpy()))


def of_sizes(x: Tensor) -> Tensor:
    width = x.shape[-1]
    return torch.sigmoid(x) / math.sqrt(width) + np.sqrt(x.size(0)) + math.log(len(x))


#: Replaced as a whole: strict accepts them, and the audit finds nothing.
REPLACED: dict[str, Callable[[Tensor], Tensor]] = {
    "gumbel_softmax": lambda x: F.gumbel_softmax(x, 0.7),
    "hard gumbel_softmax": lambda x: F.gumbel_softmax(x, hard=True),
    "cosine_similarity": lambda x: F.cosine_similarity(x, Y),
    "cdist": lambda x: torch.cdist(x, Y),
    "pairwise_distance": lambda x: F.pairwise_distance(x, Y),
    "dist": lambda x: torch.dist(x, Y),
    "cross_entropy": lambda x: F.cross_entropy(x, CLASSES),
    "cross_entropy of a module": lambda x: nn.CrossEntropyLoss()(x.sigmoid(), CLASSES),
    "kl_div": lambda x: F.kl_div(x, Y, reduction="batchmean"),
    "mse_loss": lambda x: F.mse_loss(x, Y),
    "binary_cross_entropy": lambda x: F.binary_cross_entropy(x.clamp(0.1, 0.9), Y.clamp(0.1, 0.9)),
    "binary_cross_entropy_with_logits": lambda x: F.binary_cross_entropy_with_logits(x, Y, pos_weight=Y[0]),
    "nll_loss": lambda x: F.nll_loss(x.log_softmax(-1), CLASSES),
    "float_power": lambda x: torch.float_power(x, 1.7),
    "torch._softmax": lambda x: torch._softmax(x, 1, False),
    "torch.ops.aten.exp": lambda x: torch.ops.aten.exp(x),
    "torch.ops.aten.exp.default": lambda x: torch.ops.aten.exp.default(x),
    "torch.ops.aten in place": lambda x: torch.ops.aten.sigmoid_(x.clone()),
    "torch.ops.aten._softmax": lambda x: torch.ops.aten._softmax.default(x, 1, False),
    "torch.ops.aten.pow": lambda x: torch.ops.aten.pow.Tensor_Scalar(x, 2),
    "var_mean": lambda x: torch.var_mean(x, -1)[0] + torch.std_mean(x, -1)[1],
    "linalg.norm": lambda x: torch.linalg.norm(x, dim=-1),
    "order one": lambda x: torch.linalg.vector_norm(x, 1) + x.sigmoid(),
    "rounded quotients": lambda x: x // Y + x % Y + torch.fmod(x, Y) + torch.div(x, Y, rounding_mode="trunc") + x.exp(),
    "closure": closure(torch.exp),
    "partial": functools.partial(helper, factor=3.0),
    "vmap": torch.func.vmap(torch.exp),
    "vmap inside": lambda x: torch.func.vmap(lambda row: row.softmax(-1))(x),
    "numbers": of_sizes,
}
#: Left: the report names each, and strict refuses.
LEFT: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "scripted": (lambda x: SCRIPTED(x), "scripted"),
    "scripted attribute": (SCRIPTED, "scripted"),
    "linalg.svd": (torch.linalg.svd, "linalg_svd"),
    "svdvals by another name": (lambda x: torch.linalg.svdvals(x), "linalg_svdvals"),
    "linalg.inv": (lambda x: torch.linalg.inv(x), "linalg_inv"),
    "linalg.solve": (lambda x: torch.linalg.solve(x, Y), "linalg_solve"),
    "linalg.det": (lambda x: torch.linalg.det(x), "linalg_det"),
    "inverse": (lambda x: x.inverse(), "inverse"),
    "cholesky": (lambda x: torch.cholesky_inverse(x), "cholesky_inverse"),
    "matrix_exp": (lambda x: x.matrix_exp(), "matrix_exp"),
    "hypot": (lambda x: torch.hypot(x, Y), "hypot"),
    "xlogy": (lambda x: torch.xlogy(x, Y), "xlogy"),
    "special": (lambda x: torch.special.entr(x), "special_entr"),
    "lists": (lambda x: torch._foreach_exp([x])[0], "_foreach_exp"),
    "instance_norm": (lambda x: F.instance_norm(x[None]), "instance_norm"),
    "np.exp": (lambda x: torch.as_tensor(np.exp(x.numpy())), "numpy.exp"),
    "np.exp of a local import": (numpy_inside, "numpy.exp"),
    "np.linalg": (lambda x: torch.as_tensor(np.linalg.inv(x)), "numpy.linalg.inv"),
    "math.exp": (lambda x: x * math.exp(x.mean().item()), "math.exp"),
    "math.exp by its own name": (lambda x: x * number_exp(float(x.mean())), "math.exp"),
    "thread": (in_thread, "Thread"),
    "pool": (in_pool, "ThreadPoolExecutor"),
    "grad": (lambda x: torch.func.grad(lambda y: y.exp().sum())(x), "grad"),
}


class Calls(nn.Module):
    """Call one function in forward, by a private method."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self._run(x)

    def _run(self, x: Tensor) -> object:
        return self.function(x)


@pytest.mark.parametrize("name", REPLACED)
def test_what_strict_accepts_runs_no_float_nonlinearity(name: str) -> None:
    model = Calls(REPLACED[name])
    torch.manual_seed(3)
    exact = model(X)
    report = convert(model, strict=True)
    assert report.leftovers == ()
    torch.manual_seed(3)
    with audit(model) as found:
        spiking = model(X)
    assert found.counts == {}
    torch.testing.assert_close(spiking, exact, rtol=1e-3, atol=1e-3)
    assert float((spiking.double() - exact.double()).abs().max()) > 0.0 or "hard" in name or "dist" in name  # type: ignore[attr-defined]
    revert(model)
    torch.manual_seed(3)
    assert torch.equal(model(X), exact)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_is_named_and_refused(name: str) -> None:
    function, left = LEFT[name]
    model = nn.Sequential(nn.Tanh(), Calls(function))
    state = [dict(vars(module)) for module in model.modules()]
    with pytest.raises(SpikeplugError, match=r"^strict: .*'1' \(") as caught:
        convert(model, strict=True)
    assert "\n" not in str(caught.value)
    assert [dict(vars(module)) for module in model.modules()] == state
    report = convert(model)
    assert left in _names(report)
    assert not any(entry.operator == left for entry in report.replaced)
    model(X)
    revert(model)
    # Alone, it is the one thing that the message names.
    if not any(entry.action == "replaced" for entry in report.entries if entry.path == "1"):
        with pytest.raises(SpikeplugError, match=f"nothing to replace: there is no spiking operator for .*{left}"):
            convert(Calls(function))


def _names(report: Report) -> set[str]:
    return {entry.operator for entry in report.leftovers}


@pytest.mark.parametrize(
    ("layer", "name"), [(nn.LSTM(4, 4), "lstm"), (nn.GRU(4, 4), "gru"), (nn.InstanceNorm1d(4), "instance_norm")]
)
def test_a_layer_that_cannot_be_replaced_is_named_where_it_is_alone(layer: nn.Module, name: str) -> None:
    with pytest.raises(SpikeplugError, match=f"nothing to replace: there is no spiking operator for {name}"):
        convert(layer)


def test_a_compiled_function_in_forward_is_replaced() -> None:
    model = Calls(torch.compile(torch.nn.functional.silu, backend="eager"))
    exact = model(X)
    report = convert(model, strict=True)
    assert {entry.operator for entry in report.replaced} == {"silu"}
    assert 0 < float((model(X) - exact).abs().max()) < 1e-3  # type: ignore[operator]
