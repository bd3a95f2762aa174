"""Arguments of operators: any number is taken, and anything else is one sentence, with a gradient or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeplug import convert, functional
from spikeplug.errors import SpikeplugError
from spikeplug.library import OPERATORS

X = torch.linspace(-2, 3, 32).view(4, 8)
#: By name of a setting: a call of an operator with this setting.
SETTINGS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "dim": lambda x, value: functional.softmax(x, value),
    "dim of a norm": lambda x, value: functional.vector_norm(x, value),
    "eps": lambda x, value: functional.layer_norm(x, eps=value),
    "beta": lambda x, value: functional.softplus(x, value),
    "threshold": lambda x, value: functional.softplus(x, 1.0, value),
    "scaling": lambda x, value: functional.attention(x[None, None], x[None, None], x[None, None], None, value),
    "softcap": lambda x, value: functional.attention(x[None, None], x[None, None], x[None, None], softcap=value),
    "approximate": lambda x, value: functional.gelu(x, value),
    "keepdim": lambda x, value: functional.vector_norm(x, -1, value),
    "second tensor": lambda x, value: functional.divide(x, value),
    "key": lambda x, value: functional.attention(x[None, None], value, x[None, None]),
    "mask": lambda x, value: functional.attention(x[None, None], x[None, None], x[None, None], value),
    "sinks": lambda x, value: functional.attention(x[None, None], x[None, None], x[None, None], sinks=value),
}
ODD = ["a", [], {}, 1j, object(), np.ones(3), -1e30, b"x"]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_values_of_other_types_are_one_sentence(name: str, graded: bool, value: Any) -> None:
    if name == "scaling" and isinstance(value, float):
        value = "b"  # any finite number is a scaling
    with pytest.raises(SpikeplugError) as caught:
        SETTINGS[name](X.clone().requires_grad_(graded), value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dim", np.int64(0)),
        ("dim of a norm", np.int32(-2)),
        ("eps", np.float32(0.5)),
        ("eps", 1),
        ("beta", np.float16(2)),
        ("threshold", np.float64(0.25)),
        ("scaling", np.float32(0.5)),
        ("softcap", np.int64(2)),
    ],
)
def test_numbers_of_numpy_are_taken(name: str, graded: bool, value: Any) -> None:
    x = X.clone().requires_grad_(graded)
    plain = value.item() if isinstance(value, np.generic) else float(value)
    assert torch.equal(SETTINGS[name](x, value), SETTINGS[name](x, plain))


def test_a_converted_module_with_a_number_of_numpy() -> None:
    model = nn.Sequential(nn.LayerNorm(8, eps=np.float32(0.5)), nn.Softmax(dim=np.int64(0)))  # type: ignore[arg-type]
    exact = model(X)
    convert(model, strict=True)
    assert 0 < float((model(X) - exact).detach().abs().max()) < 1e-3


def test_every_schema_names_types_that_are_checked() -> None:
    for operator in OPERATORS.values():
        assert len(operator.types) == len(operator.arguments.split(", "))
