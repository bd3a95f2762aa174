"""Test the scope around the whole model: it catches what byte code does not show, except in excluded modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeplug.conversion import audit, convert, revert
from spikeplug.conversion.tracking import Running

X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


class MakesModules(nn.Module):
    """Use a softmax module outside of the model, and an exponential fetched by name."""

    def forward(self, x: Tensor) -> Tensor:
        return getattr(torch, "".join(("ex", "p")))(nn.Softmax(-1)(x))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = MakesModules(), MakesModules()
        self.norm, self.other = nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.norm(self.other(x))))


def test_functions_and_modules_made_on_the_way() -> None:
    model = Pair()
    exact = model(X).detach()
    convert(model)
    with audit(model) as found:
        spiking = model(X).detach()
    assert found.counts == {}
    assert 0 < float((spiking - exact).abs().max()) < 1e-3 * float(exact.abs().max())
    revert(model)
    assert torch.equal(model(X), exact)


def test_excluded_modules_stay_exact_where_nothing_was_found_in_them() -> None:
    model = Pair()
    given: list[Tensor] = []
    model.first.register_forward_hook(lambda module, inputs, output: given.extend((*inputs, output)))
    convert(model, exclude="first|other")
    with audit(model) as found:
        model(X)
    assert torch.equal(given[1], given[0].softmax(-1).exp())
    assert {(entry.path, entry.op) for entry in found.entries} == {
        ("Softmax", "_softmax"),  # made on the way, so it has no path
        ("first", "exp"),
        ("other", "native_layer_norm"),
    }


def test_only_chosen_operators_are_in_the_net() -> None:
    model = Pair()
    convert(model, operators=("layer_norm",))
    with audit(model) as found:
        model(X)
    assert found.counts == {"_softmax": 2, "exp": 2}


def test_a_module_that_fails_and_is_caught_is_left() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError

    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Fails()

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.inner(x)
            except ValueError:
                return x.exp()

    model = Catches()
    with audit(model) as found:
        model(X)
    assert [(entry.path, entry.op) for entry in found.entries] == [("", "exp")]
    with Running(model) as running:
        model(X)
        assert running.path == ""
