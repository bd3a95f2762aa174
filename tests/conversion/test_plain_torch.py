"""Test models of plain torch: its Transformer classes in every form, their fused fast paths, and stacks of layers."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from tiny_models import relative_error
from torch import Tensor, nn

from spikeplug.conversion import audit, convert, revert
from spikeplug.errors import SpikeplugError

TOLERANCE = 1e-3
MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "grad": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Silence torch's warning about its own nested tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def randomised(model: nn.Module) -> nn.Module:
    """Return the module in eval mode, with all weights and biases random, so that an unused one shows."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model.eval()


def inputs(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def check(model: nn.Module, *args: Any, visible: Any = ..., **kwargs: Any) -> None:
    """Check, in every mode: the output is close to the exact one, nothing runs in floats, and revert restores it."""
    for name, mode in MODES.items():
        with mode():
            exact = model(*args, **kwargs)
            report = convert(model)
            with audit(model) as found:
                converted = model(*args, **kwargs)
            revert(model)
            again = model(*args, **kwargs)
        assert found.counts == {}, name
        assert report.leftovers == (), name
        for ours, theirs, last in zip(
            *(x if isinstance(x, tuple) else (x,) for x in (converted, exact, again)), strict=True
        ):
            if theirs is None:
                assert ours is None
                continue
            assert ours.shape == theirs.shape
            assert 0 < relative_error(ours[visible], theirs[visible]) < TOLERANCE, name
            assert torch.equal(last, theirs), name


WIDTH, HEADS, HIDDEN = 16, 2, 24
OPTIONS = list(itertools.product((False, True), (False, True)))
ACTIVATIONS = ("relu", "gelu", F.gelu, torch.tanh, lambda x: F.silu(x) * 1.5, nn.Mish())


@pytest.mark.parametrize(("norm_first", "batch_first"), OPTIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=("relu", "gelu", "F.gelu", "tanh", "lambda", "module"))
def test_encoder_layer(norm_first: bool, batch_first: bool, activation: Any) -> None:
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, HIDDEN, activation=activation, norm_first=norm_first, batch_first=batch_first
    )
    check(randomised(layer), inputs(3, 5, WIDTH))


@pytest.mark.parametrize(("norm_first", "batch_first"), OPTIONS)
def test_decoder(norm_first: bool, batch_first: bool) -> None:
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, HIDDEN, norm_first=norm_first, batch_first=batch_first)
    decoder = nn.TransformerDecoder(layer, 2, norm=nn.LayerNorm(WIDTH))
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    shape = (3, 5, WIDTH) if batch_first else (5, 3, WIDTH)
    check(randomised(decoder), inputs(*shape), inputs(*shape, seed=6), tgt_mask=causal, tgt_is_causal=True)


@pytest.mark.parametrize(("norm_first", "batch_first"), OPTIONS)
def test_encoder_with_padding(norm_first: bool, batch_first: bool) -> None:
    """torch makes nested tensors of padded input; these would never reach the layers' forwards."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, norm_first=norm_first, batch_first=batch_first)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[0, 3:] = padding[2, 1:] = True
    shape = (3, 5, WIDTH) if batch_first else (5, 3, WIDTH)
    # The outputs of padding tokens do not matter; the fast path gives 0.
    visible = ~padding if batch_first else ~padding.T
    check(randomised(nn.TransformerEncoder(layer, 2)), inputs(*shape), src_key_padding_mask=padding, visible=visible)


def test_whole_transformer() -> None:
    model = nn.Transformer(WIDTH, HEADS, 1, 1, HIDDEN, batch_first=True)
    check(randomised(model), inputs(3, 5, WIDTH), inputs(3, 4, WIDTH, seed=6))


BOOL_2D = torch.ones(4, 5, dtype=torch.bool).triu(2)
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])
MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "bool 2D": {"attn_mask": BOOL_2D},
    "bool 3D": {"attn_mask": torch.stack([BOOL_2D.roll(i, 1) for i in range(3 * HEADS)])},
    "float 2D": {"attn_mask": inputs(4, 5, seed=7)},
    "float 3D": {"attn_mask": inputs(3 * HEADS, 4, 5, seed=7)},
    "float with -inf": {"attn_mask": torch.zeros(4, 5).masked_fill(BOOL_2D, -torch.inf)},
    "padding": {"key_padding_mask": PADDING},
    "float padding": {"key_padding_mask": inputs(3, 5, seed=8)},
    "padding and bool": {"key_padding_mask": PADDING, "attn_mask": BOOL_2D},
    "padding and float": {"key_padding_mask": PADDING, "attn_mask": inputs(3 * HEADS, 4, 5, seed=7)},
    "float padding and bool": {"key_padding_mask": inputs(3, 5, seed=8), "attn_mask": BOOL_2D},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.filterwarnings("ignore:Support for mismatched")
def test_every_mask_of_multi_head_attention(mask: str) -> None:
    attention = randomised(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))
    query, key, value = inputs(3, 4, WIDTH), inputs(3, 5, WIDTH, seed=6), inputs(3, 5, WIDTH, seed=9)
    for more in ({"need_weights": False}, {}, {"average_attn_weights": False}):
        check(attention, query, key, value, **MASKS[mask], **more)


@pytest.mark.parametrize("bias", [False, True])
def test_other_forms_of_multi_head_attention(bias: bool) -> None:
    x, other, third = inputs(4, 3, WIDTH), inputs(5, 3, 6, seed=6), inputs(5, 3, 10, seed=9)
    check(randomised(nn.MultiheadAttention(WIDTH, HEADS, bias=bias)), x, x, x)
    check(randomised(nn.MultiheadAttention(WIDTH, HEADS, bias=bias, kdim=6, vdim=10)), x, other, third)
    unbatched = randomised(nn.MultiheadAttention(WIDTH, HEADS, bias=bias))
    check(unbatched, x[:, 0], x[:, 1], x[:, 2])
    check(unbatched, x[:, 0], x[:, 1], x[:, 2], attn_mask=inputs(HEADS, 4, 4), average_attn_weights=False)
    check(unbatched, x[:, 0], x[:, 1], x[:, 2], key_padding_mask=torch.tensor([False, False, False, True]))
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
    check(unbatched, x, x, x, attn_mask=causal, is_causal=True, need_weights=False)


@pytest.mark.parametrize("how", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_forms_that_are_refused(how: dict[str, bool]) -> None:
    model = randomised(nn.MultiheadAttention(WIDTH, HEADS, **how))
    convert(model)
    with pytest.raises(SpikeplugError, match="does not take bias_k, bias_v, add_zero_attn"):
        model(*[inputs(4, 3, WIDTH)] * 3)


def test_dropout_of_attention_drops_in_training_only() -> None:
    model, x = randomised(nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5)), inputs(4, 3, WIDTH)
    exact = model(x, x, x, need_weights=False)[0]
    convert(model)
    assert 0 < relative_error(model(x, x, x, need_weights=False)[0], exact) < TOLERANCE
    model.train()
    torch.manual_seed(0)
    answers = torch.stack([model(x, x, x, need_weights=False)[0] for _ in range(400)])
    assert not torch.equal(answers[0], answers[1])
    assert relative_error(answers.mean(0), exact) < 0.3  # what is kept is scaled up


@pytest.mark.parametrize("mode", MODES)
def test_an_excluded_layer_keeps_its_fast_path_to_the_bit(mode: str) -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True)
    model = randomised(nn.Sequential(layer, nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True)))
    x = inputs(3, 5, WIDTH)
    with MODES[mode]():
        exact = model[0](x), model(x)
        convert(model, exclude=r"^0")
        assert torch.equal(model[0](x), exact[0])
        assert not torch.equal(model(x), exact[1])


@pytest.mark.parametrize("mode", MODES)
def test_what_sits_in_an_excluded_layer_is_not_passed_by(mode: str) -> None:
    model = randomised(nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True))
    x = inputs(3, 5, WIDTH)
    with MODES[mode]():
        exact = model(x)
        convert(model, operators=("layer_norm",))
        with audit(model) as found:
            assert 0 < relative_error(model(x), exact) < TOLERANCE
    assert "native_layer_norm" not in found.counts
    assert "_transformer_encoder_layer_fwd" not in found.counts


def test_a_stack_of_every_activation() -> None:
    model = nn.Sequential(
        nn.Linear(8, 16),
        nn.GELU(),
        nn.LayerNorm(16),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.Softplus(2, 5),
        nn.Mish(),
        nn.GELU("tanh"),
        nn.SiLU(),
        nn.LogSigmoid(),
        nn.RMSNorm(16, 1e-5),
        nn.GLU(),
        nn.Linear(8, 8),
        nn.Softmax(-1),
        nn.LogSoftmax(1),
        nn.ReLU(),
    )
    check(randomised(model)[:-1], inputs(3, 8))


def test_a_convolutional_stack() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.GroupNorm(4, 8),
        nn.SiLU(inplace=True),
        nn.Conv2d(8, 6, 3),
        nn.GroupNorm(1, 6),
        nn.Softmax2d(),
    )
    check(randomised(model), inputs(2, 3, 9, 9))


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: nn.LSTM(8, 8), "lstm"),
        (lambda: nn.GRU(8, 8), "gru"),
        (lambda: nn.RNN(8, 8), "rnn_tanh"),
        (lambda: nn.LSTMCell(8, 8), "lstm_cell"),
        (lambda: nn.InstanceNorm1d(8), "instance_norm"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_replaced_is_named(layer: Callable[[], nn.Module], name: str) -> None:
    model = nn.Sequential(nn.Tanh(), layer())
    state = [dict(vars(module)) for module in model.modules()]
    with pytest.raises(SpikeplugError, match=r"strict: .* would stay in floating point, the first '1'"):
        convert(model, strict=True)
    assert [dict(vars(module)) for module in model.modules()] == state
    report = convert(model)
    assert ("1", name) in {(entry.path, entry.operator) for entry in report.leftovers}


def test_strict_takes_what_is_whole() -> None:
    model = randomised(nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, batch_first=True), 1))
    assert convert(model, strict=True).leftovers == ()


def test_a_model_with_nothing_to_replace() -> None:
    with pytest.raises(SpikeplugError, match="nothing to replace"):
        convert(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))


def test_modules_of_a_converted_model_are_not_converted_again() -> None:
    model = nn.Sequential(nn.Sequential(nn.Tanh()), nn.GELU())
    convert(model)
    for part in (model[0], model[1]):
        with pytest.raises(SpikeplugError, match="is spiking already"):
            convert(part)
    with pytest.raises(SpikeplugError, match=r"its part '0\.0' is spiking already"):
        convert(nn.Sequential(model[0]))
