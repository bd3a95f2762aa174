"""Layers with integer weights: within a bound of the float layer, in every shape and setting that the layer takes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding
from transformers.models.whisper.modeling_whisper import WhisperPositionalEmbedding
from transformers.pytorch_utils import Conv1D

from spikeplug.conversion import Report, audit, convert, revert
from spikeplug.conversion.whole.coded import coded_plug
from spikeplug.errors import SpikeplugError


class Doubled(nn.Linear):
    """A subclass that calls F.linear by itself."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias) * 2.0


class Held(nn.Module):
    """A layer, and a nonlinearity."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.act = layer, nn.SiLU()

    def forward(self, x: Any) -> Tensor:
        return self.act(self.layer(x))


def seeded(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(layer: nn.Module, x: Any, **request: Any) -> tuple[Tensor, Tensor, Report]:
    """Return the layer's float output, its output with integer weights, and the report; the layer stays as it was."""
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    model = Held(layer).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        exact = layer(x)
        report = convert(model, recipe="whole", calibration={"x": x}, **request)
        with audit(model, linear=True) as found:
            model(x)
        assert not found.entries
        spiking = layer(x)
        revert(model)
        assert torch.equal(layer(x), exact)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    return exact, spiking, report


def is_close(spiking: Tensor, exact: Tensor) -> bool:
    """Return whether 127 levels of weights and inputs explain the difference."""
    return spiking.shape == exact.shape and bool((spiking - exact).norm() < 0.02 * exact.norm())


LAYERS: dict[str, tuple[nn.Module, Any]] = {
    "linear": (nn.Linear(24, 10), seeded(3, 5, 24)),
    "linear without bias": (nn.Linear(24, 10, bias=False), seeded(3, 24)),
    "linear of one vector": (nn.Linear(24, 10), seeded(24)),
    "linear with own forward": (Doubled(24, 10), seeded(3, 24)),
    "linear by a transposed weight": (FalconLinear(24, 10), seeded(3, 24)),
    "one by one": (nn.Linear(1, 1), seeded(4, 1)),
    "odd sizes": (nn.Linear(123, 7), seeded(5, 123)),
    "Conv1D": (Conv1D(10, 24), seeded(3, 5, 24)),
    "embedding": (nn.Embedding(20, 8), torch.arange(20).view(4, 5)),
    "embedding of one id": (nn.Embedding(20, 8, padding_idx=0), torch.tensor(3)),
    "scaled embedding": (Gemma3TextScaledWordEmbedding(20, 8, 0, 3.3), torch.arange(20).view(4, 5)),
    "conv1d": (nn.Conv1d(6, 10, 3), seeded(2, 6, 17)),
    "conv1d, all settings": (nn.Conv1d(6, 10, 3, stride=2, padding=4, dilation=2, bias=False), seeded(2, 6, 17)),
    "conv1d in groups": (nn.Conv1d(6, 9, 3, padding=1, groups=3), seeded(2, 6, 17)),
    "conv1d, depthwise": (nn.Conv1d(6, 6, 4, padding=3, groups=6), seeded(2, 6, 17)),
    "conv1d, same": (nn.Conv1d(6, 10, 3, dilation=3, padding="same"), seeded(2, 6, 17)),
    "conv1d, unbatched": (nn.Conv1d(6, 10, 3), seeded(6, 17)),
    "conv2d": (nn.Conv2d(3, 8, 4, stride=4), seeded(2, 3, 16, 16)),
    "conv2d, all settings": (
        nn.Conv2d(4, 8, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3), groups=2),
        seeded(2, 4, 9, 13),
    ),
    "conv2d, valid": (nn.Conv2d(3, 8, 3, padding="valid"), seeded(2, 3, 7, 7)),
    "conv2d, unbatched": (nn.Conv2d(3, 8, 3), seeded(3, 7, 7)),
    "conv2d, none": (nn.Conv2d(3, 8, 3), seeded(0, 3, 7, 7)),
}
for _mode in ("reflect", "replicate", "circular"):
    LAYERS[f"conv1d, {_mode}"] = (nn.Conv1d(6, 10, 3, padding=2, padding_mode=_mode), seeded(2, 6, 17))
    LAYERS[f"conv2d, {_mode}"] = (nn.Conv2d(3, 8, 3, padding=(1, 2), padding_mode=_mode), seeded(2, 3, 7, 9))


@pytest.mark.parametrize(("layer", "x"), LAYERS.values(), ids=LAYERS)
def test_a_layer_is_near_the_float_one(layer: nn.Module, x: Any) -> None:
    if isinstance(x, Tensor) and x.numel() == 0:
        with pytest.raises(SpikeplugError, match="holds no x"):
            whole(layer, x)
        return
    exact, spiking, report = whole(layer, x)
    assert is_close(spiking, exact)
    assert not torch.equal(spiking, exact)
    assert not report.left


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d", "embedding"])
def test_empty_batches_keep_their_shape(name: str) -> None:
    layer, x = LAYERS[name]
    model = Held(copy.deepcopy(layer)).eval()
    with torch.no_grad():
        exact = model.layer(x[:0])
        convert(model, recipe="whole", calibration={"x": x})
        assert model.layer(x[:0]).shape == exact.shape


def test_rows_of_a_table_may_be_chosen() -> None:
    """As Whisper's positions are: a slice of the weight."""
    layer, x = WhisperPositionalEmbedding(20, 8), torch.arange(6).view(1, 6)
    exact, spiking, _ = whole(layer, x)
    assert is_close(spiking, exact)


def test_a_row_does_not_depend_on_its_batch() -> None:
    for name in ("linear", "Conv1D", "conv1d", "conv2d, all settings"):
        layer, x = LAYERS[name]
        model = Held(copy.deepcopy(layer)).eval()
        convert(model, recipe="whole", calibration={"x": x})
        with torch.no_grad():
            assert torch.equal(model.layer(x)[1:], model.layer(x[1:]))


class Routed(nn.Linear):
    """A subclass that does more than its class."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize(
    ("layer", "x", "left"),
    [
        (nn.Conv3d(2, 3, 2), seeded(1, 2, 4, 4, 4), "matmul"),
        (nn.ConvTranspose1d(2, 3, 2), seeded(1, 2, 4), "matmul"),
        (nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3)), seeded(1, 4, 8), "matmul"),
        (nn.AvgPool1d(2), seeded(1, 4, 8), "avg_pool2d"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_plug_takes_stays_float_and_is_named(layer: nn.Module, x: Tensor, left: str) -> None:
    model = Held(layer).eval()
    with torch.no_grad():
        exact = model.layer(x)
        report = convert(model, recipe="whole", calibration={"x": x})
        assert left in {entry.operator for entry in report.left if entry.path == "layer"}
        assert all(entry.reason for entry in report.left)
        assert torch.equal(model.layer(x), exact)
        revert(model)
        with pytest.raises(SpikeplugError, match="strict"):
            convert(model, recipe="whole", calibration={"x": x}, strict=True)
        assert torch.equal(model.layer(x), exact)


def test_a_weight_that_its_own_forward_changes_stays_float() -> None:
    layer, x = Routed(8, 4), seeded(3, 8)
    model = Held(layer).eval()
    report = convert(model, recipe="whole", calibration={"x": x})
    assert layer.weight.dtype == torch.float32
    assert any("layer" in note for note in report.notes)
    with torch.no_grad():
        assert bool(torch.isfinite(model(x)).all())


def test_tables_that_change_while_they_run_are_left() -> None:
    assert coded_plug(nn.Embedding(5, 3, max_norm=1.0)) is None
    assert coded_plug(nn.Linear(3, 3, dtype=torch.complex64)) is None
    assert coded_plug(nn.LayerNorm(3)) is None


def test_copies_by_copy_are_reverted_alone() -> None:
    layer, x = LAYERS["linear"]
    model = Held(copy.deepcopy(layer)).eval()
    with torch.no_grad():
        exact = model(x)
        convert(model, recipe="whole", calibration={"x": x})
        spiking = model(x)
        twin = copy.copy(model.layer)
        assert torch.equal(twin(x), model.layer(x))
        revert(twin)
        assert twin.weight.dtype == torch.float32
        assert torch.equal(model(x), spiking)
        revert(model)
        assert torch.equal(model(x), exact)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["layer.weight", "layer.bias"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_weights_that_are_not_finite_are_named(name: str, value: float, calibrated: bool) -> None:
    model, x = Held(nn.Linear(6, 4)), seeded(2, 6)
    model.get_parameter(name).data.view(-1)[1] = value
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(SpikeplugError, match=rf"({name}|{name.partition('.')[2]} of layer) holds NaN or infinity"):
        convert(model, recipe="whole", calibration={"x": x} if calibrated else False)
    assert model.state_dict().keys() == state.keys()
    assert all(same_bits(value, state[key]) for key, value in model.state_dict().items())


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    model = Held(nn.Linear(6, 4)).to(dtype)
    with pytest.raises(SpikeplugError, match=r"call model\.float\(\) first"):
        convert(model, recipe="whole", calibration={"x": seeded(2, 6).to(dtype)})
    assert model.layer.weight.dtype == dtype


def test_double_precision_gives_the_same_integers() -> None:
    layer, x = LAYERS["linear"]
    single, double = Held(copy.deepcopy(layer)), Held(copy.deepcopy(layer)).double()
    convert(single, recipe="whole", calibration={"x": x})
    convert(double, recipe="whole", calibration={"x": x.double()})
    assert torch.equal(single.layer.weight, double.layer.weight)
    assert double(x.double()).dtype == torch.float64


@pytest.mark.parametrize("exclude", ["layer", "act"])
def test_excluded_modules_stay_exact(exclude: str) -> None:
    layer, x = LAYERS["linear"]
    model = Held(copy.deepcopy(layer)).eval()
    with torch.no_grad():
        exact = model.layer(x), model.act(x)
        report = convert(model, recipe="whole", calibration={"x": x}, exclude=exclude, strict=True)
        assert torch.equal(model.layer(x), exact[0]) == (exclude == "layer")
        assert torch.equal(model.act(x), exact[1]) == (exclude == "act")
    assert exclude in {entry.path for entry in report.left}
    with pytest.raises(SpikeplugError, match="is converted already"):
        convert(model, recipe="whole", calibration={"x": x})
    revert(model)
    with pytest.raises(SpikeplugError, match="leaves nothing to replace"):
        convert(model, recipe="whole", calibration={"x": x}, exclude=".")


def test_a_model_without_nonlinearities_becomes_whole() -> None:
    layer, x = LAYERS["linear"]
    model = nn.Sequential(copy.deepcopy(layer), nn.Linear(10, 4))
    with torch.no_grad():
        exact = model(x)
        convert(model, recipe="whole", calibration={"input": x})
        with audit(model, linear=True) as found:
            spiking = model(x)
    assert is_close(spiking, exact)
    assert not found.entries
