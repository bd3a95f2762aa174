"""Linear layers on the GPU = linear layers closed; the kernels that encode rows, multiply and scale."""

from __future__ import annotations

import pytest
import torch
from gpu_kernel_cases import DEVICE, DTYPES, assert_equal, rows, seeded
from torch import Tensor

from spikeplug import Numerics, kernels
from spikeplug.kernels import Call, closed_forms
from spikeplug.kernels.gpu import launch, linear_product
from spikeplug.library import OPERATORS
from spikeplug.presets import PRESETS

linear = OPERATORS["linear"]
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
NUMERICS = (Numerics(), Numerics(bits=2, working_bits=3), Numerics(bits=20, working_bits=24))
#: Levels, block and rotation: one digit and two, the most levels, blocks, rotations with Paley factors and without.
ENCODERS = (
    (127, 0, 0),
    (256, 0, 0),
    (1, 0, 0),
    (32639, 0, 0),
    (127, 32, 0),
    (256, 16, 0),
    (3, 1, 0),
    (256, 0, 2),
    (127, 0, 96),
    (16, 32, 48),
)


def layer(outputs: int, inputs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight with -128 in it, thresholds from 0 to the largest, and their unit."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randint(-128, 128, (outputs, inputs), generator=g).to(torch.int8)
    weight[torch.rand(outputs, inputs, generator=g) < 0.1] = -128
    threshold = torch.randint(0, 1 << 16, (outputs,), generator=g, dtype=torch.int32)
    threshold[0], threshold[-1] = 0, (1 << 16) - 1
    return weight.to(DEVICE), threshold.to(DEVICE), torch.tensor(-20, dtype=torch.int32, device=DEVICE)


def check(*arguments: object, numerics: Numerics | None = None) -> None:
    def run() -> Tensor:
        return linear(*arguments, numerics=numerics)

    def closed() -> Tensor:
        with closed_forms():
            return run()

    assert_equal(run, closed)


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_rows_of_every_kind(encoder: tuple[int, int, int]) -> None:
    for place, numerics in enumerate(NUMERICS):
        x = rows(DTYPES[place])
        check(x, *layer(13, 96), None, *encoder, numerics=numerics)


@pytest.mark.parametrize("apart", [-60, -24, -8, -1, 0, 3, 20, 40])
def test_biases_of_every_size(apart: int) -> None:
    """From far below the product's last bit to far above its first one, where the product is cut off."""
    bias = seeded(13, seed=1) * 2.0**apart
    bias[3], bias[4] = 0, -bias[2]
    for dtype, numerics in zip(DTYPES, NUMERICS, strict=True):
        given = bias.to(DEVICE, dtype if abs(apart) < 9 else torch.float32)
        check(rows(torch.float32), *layer(13, 96), given, 256, 0, 0, numerics=numerics)


def test_biases_that_are_not_finite_are_counted() -> None:
    bias = seeded(13, seed=1)
    bias[2], bias[5], bias[6] = torch.nan, torch.inf, -torch.inf
    check(rows(torch.float32)[:4], *layer(13, 96), bias.to(DEVICE))
    check(rows(torch.float32)[:4], *layer(13, 96), torch.full((13,), torch.nan, device=DEVICE))
    check(rows(torch.float32)[:4], *layer(13, 96), torch.full((13,), 1e-42, device=DEVICE))


@pytest.mark.parametrize("levels", [127, 256])
def test_the_largest_sums(levels: int) -> None:
    """Every level is the largest, every weight -128 or 127; as many terms as fit 32 bits, and one more."""
    most = ((1 << 31) - 1) // (levels * 128)
    for inputs in (2048, most):
        for sign in (1.0, -1.0):
            weight, threshold, unit = layer(3, inputs)
            weight[0], weight[1] = -128, 127
            check(torch.full((1, inputs), sign, device=DEVICE), weight, threshold, unit, None, levels)
    weight, threshold, unit = layer(3, most + 1)
    call = Call("linear", (torch.ones(1, most + 1, device=DEVICE), weight, threshold, unit, None, levels), Numerics())
    assert kernels.explain(call).endswith(f"sums of {most + 1} products do not fit 32 bits")


def test_halves_are_rounded_away_from_zero() -> None:
    """Sums that are an odd number of half steps of the output, from the smallest to the widest products."""
    for bits in (2, 8, 16):
        for top in range(bits, 24, 3):
            half = 1 << (top - bits)
            sums = torch.tensor([1 << top, *(half * (2 * i + 1) for i in range(60)), half - 1, half + 1])
            sums = sums[sums <= 1 << top].clamp(max=(1 << 16) - 1)
            weight = torch.full((len(sums), 1), -1, dtype=torch.int8, device=DEVICE)
            threshold, unit = sums.to(DEVICE, torch.int32), torch.tensor(-9, dtype=torch.int32, device=DEVICE)
            x = torch.tensor([[1.0], [-0.7], [3.3]], device=DEVICE)
            check(x, weight, threshold, unit, None, 1, numerics=Numerics(bits=bits))


@pytest.mark.parametrize("shape", [(5,), (1, 1), (3, 7, 5), (70, 33), (130, 100)])
def test_shapes(shape: tuple[int, ...]) -> None:
    for outputs in (1, 17, 130):
        bias = seeded(outputs).to(DEVICE) if outputs == 17 else None
        check(seeded(*shape).to(DEVICE), *layer(outputs, shape[-1]), bias, 256)


def test_strides() -> None:
    x = seeded(6, 5, 128).to(DEVICE)
    weight, threshold, unit = layer(48, 128)
    for part in (x[:, :, ::2], x[:1, :, :64].expand(4, 5, 64), x[0, 0, :64]):
        for given in (weight[:24, :64], weight[::2, ::2], weight[24:, 64:], layer(64, 24)[0].T):
            check(part, given, threshold[::2], unit, seeded(48).to(DEVICE)[::2], 127, 0, 16)


def test_no_result_depends_on_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on the batch: a row alone is the row among others."""
    x, given = rows(torch.float32, 150), layer(70, 150)
    whole = linear(x, *given, seeded(70).to(DEVICE), 256, 32)
    for index in (3, 9, 19):
        assert torch.equal(linear(x[index], *given, seeded(70).to(DEVICE), 256, 32), whole[index])
    for tile in ((16, 16, 32), (32, 64, 128), (128, 128, 64)):
        monkeypatch.setattr(linear_product, "choose_tile", lambda rows, t=tile: linear_product.Tile(*t, 4, 2))
        check(x, *given, seeded(70).to(DEVICE), 256, 32)
    for largest, step, shared in ((64, 64, 1), (64, 128, 512), (512, 64, 4096)):
        monkeypatch.setattr(launch, "LARGEST", largest)
        monkeypatch.setattr(launch, "STEP", step)
        monkeypatch.setattr(launch, "SHARED", shared)
        check(x, *given, seeded(70).to(DEVICE), 256, 32)
        check(x, *given, None, 127, 0, 2)


def test_numerics_that_only_linear_operators_take() -> None:
    for preset in ("narrow", "paper"):
        check(rows(torch.float32), *layer(13, 96), numerics=PRESETS[preset].numerics)


def test_what_the_kernel_does_not_take_is_explained() -> None:
    weight, threshold, unit = layer(3, 96)
    x = seeded(2, 96).to(DEVICE)
    for how, reason in (
        ((127, 24, 0), "blocks of 24 channels are not a power of two up to 256"),
        ((127, 512, 0), "blocks of 512 channels are not a power of two up to 256"),
        ((1 << 15, 0, 0), "levels of 32768 with block=0 do not fit 16 bits"),
        ((127, 0, 64), "rotation=64 does not divide 96 channels"),
        ((127, 0, 7), "rotation=7 is not the order of a Hadamard matrix up to 32768"),
    ):
        call = Call("linear", (x, weight, threshold, unit, None, *how), Numerics())
        assert kernels.explain(call) == f"closed form: {reason}"
    assert kernels.explain(Call("linear", (x, weight, threshold, unit), Numerics())) == "Triton linear"
