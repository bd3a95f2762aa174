"""Test that norms are recognised by what they compute, in any code, and that nothing else is taken for a norm."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import transformers.models
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import relative_error
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNormGated
from transformers.models.t5.modeling_t5 import T5LayerNorm

from spikeplug.conversion import convert
from spikeplug.conversion.norms import Norm, find_norm


class Formula(nn.Module):
    """Compute a norm by formula."""

    def __init__(self, formula: Callable[[Tensor, Tensor, float], Tensor], width: int = 16, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps, self.formula = nn.Parameter(torch.ones(width)), eps, formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x, self.weight, self.eps)


def mean_square(x: Tensor, dim: Any = -1) -> Tensor:
    return x.pow(2).mean(dim, keepdim=True)


def root(x: Tensor) -> Tensor:
    return torch.rsqrt(mean_square(x) + 1e-6)


WRONG = {
    "eps outside the root": lambda x, w, eps: x / (mean_square(x).sqrt() + eps) * w,
    "no eps": lambda x, w, eps: x * torch.rsqrt(mean_square(x)) * w,
    "sum, not mean": lambda x, w, eps: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + eps) * w,
    "unbiased variance": lambda x, w, eps: (
        (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, keepdim=True) + eps) * w
    ),
    "mean of magnitudes": lambda x, w, eps: x / (x.abs().mean(-1, keepdim=True) + eps) * w,
    "maximum": lambda x, w, eps: x / (x.abs().amax(-1, keepdim=True) + eps) * w,
    "unit length": lambda x, w, eps: nn.functional.normalize(x, dim=-1, eps=eps) * w,
    "second dimension": lambda x, w, eps: x * torch.rsqrt(mean_square(x, 1) + eps) * w,
    "first dimension": lambda x, w, eps: x * torch.rsqrt(mean_square(x, 0) + eps) * w,
    "two dimensions": lambda x, w, eps: x * torch.rsqrt(mean_square(x, (-1, -2)) + eps) * w,
    "half of the channels": lambda x, w, eps: x * torch.rsqrt(mean_square(x[..., ::2]) + eps) * w,
    "two minus weight": lambda x, w, eps: x * torch.rsqrt(mean_square(x) + eps) * (2 - w),
    "scaled": lambda x, w, eps: 1.001 * x * torch.rsqrt(mean_square(x) + eps) * w,
    "clamped": lambda x, w, eps: (x * torch.rsqrt(mean_square(x) + eps) * w).clamp(-1, 1),
    "twice": lambda x, w, eps: x * torch.rsqrt(mean_square(x) + eps) * torch.rsqrt(mean_square(x) + eps) * w,
    "identity": lambda x, w, eps: x * w,
    "NaN": lambda x, w, eps: x * torch.nan,
    "wrong shape": lambda x, w, eps: x[:, :1],
    "another answer": lambda x, w, eps: (x * torch.rsqrt(mean_square(x) + eps) * w,),
    "raises": lambda x, w, eps: x * (1 // 0),
}


class Residual(LlamaRMSNorm):
    """Compute more if given a second tensor."""

    def forward(self, hidden_states: Tensor, residual: Tensor | None = None) -> Tensor:
        return super().forward(hidden_states if residual is None else hidden_states + residual)


@given(width=st.integers(2, 300), eps=st.floats(1e-12, 1e-2))
@settings(max_examples=40, deadline=None)
def test_norms_of_any_width_and_eps_are_recognised(width: int, eps: float) -> None:
    for norm, operator in (
        (LlamaRMSNorm(width, eps), "rms_norm"),
        (T5LayerNorm(width, eps), "rms_norm"),
        (nn.RMSNorm(width, eps), "rms_norm"),
        (nn.LayerNorm(width, eps), "layer_norm"),
        (nn.LayerNorm(width, eps, bias=False), "layer_norm"),
    ):
        found = find_norm(norm, {})
        assert found is not None
        assert (found.operator, found.weight, found.offset) == (operator, "weight", 0.0)
        assert found.eps == pytest.approx(eps)


def test_what_is_found_out_about_each() -> None:
    smallest = torch.finfo(torch.float32).eps
    assert find_norm(GemmaRMSNorm(16), {}) == Norm("rms_norm", 1e-6, "weight", 1.0, None)
    assert find_norm(nn.RMSNorm(16), {}) == Norm("rms_norm", smallest, "weight")
    assert find_norm(nn.LayerNorm(16, elementwise_affine=False), {}) == Norm("layer_norm", 1e-5)
    assert find_norm(LlamaRMSNorm(16), {}) == Norm("rms_norm", 1e-6, "weight", dtype="promoted")
    assert find_norm(T5LayerNorm(16), {}) == Norm("rms_norm", 1e-6, "weight", dtype="weight")
    gated = find_norm(Qwen3NextRMSNormGated(16), {})
    assert gated is not None
    assert gated.gate == "after"


@pytest.mark.parametrize("name", WRONG)
def test_other_formulas_are_no_norm(name: str) -> None:
    assert find_norm(Formula(WRONG[name]), {}) is None


@pytest.mark.parametrize(
    "module",
    [
        nn.GroupNorm(1, 16),
        nn.GroupNorm(4, 16),
        nn.BatchNorm1d(16),
        nn.BatchNorm1d(16, track_running_stats=False),
        nn.InstanceNorm2d(16),
        nn.LocalResponseNorm(2),
        nn.Identity(),
        nn.Linear(16, 16),
        nn.LayerNorm((4, 16)),
        nn.LayerNorm((3, 16), elementwise_affine=False),
        nn.Softmax(-1),
        nn.Sequential(nn.LayerNorm(16)),
        Residual(16),
    ],
    ids=lambda module: str(module).replace("\n", ""),
)
def test_other_modules_are_no_norm(module: nn.Module) -> None:
    assert find_norm(module, {}) is None


def test_a_norm_with_more_arguments_runs_its_own_code() -> None:
    model, x = nn.ModuleDict({"norm": Residual(16)}), torch.randn(2, 3, 16)
    exact = model["norm"](x, x.flip(0))
    convert(model)
    assert 0 < relative_error(model["norm"](x, x.flip(0)), exact) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_probing_leaves_the_module_alone(dtype: torch.dtype) -> None:
    norm = LlamaRMSNorm(16).to(dtype)
    norm.register_forward_hook(lambda *_: pytest.fail("the module itself was run"))
    weight, attributes = norm.weight, dict(vars(norm))
    assert find_norm(norm, {}) is not None
    assert norm.weight is weight
    assert torch.equal(weight, torch.ones(16, dtype=dtype))
    assert vars(norm) == attributes


def test_probing_does_not_depend_on_where_it_is_done() -> None:
    expected = find_norm(LlamaRMSNorm(16), {})
    with torch.device("meta"):
        assert find_norm(LlamaRMSNorm(16), {}) == expected
    with torch.inference_mode():
        assert find_norm(LlamaRMSNorm(16), {}) == expected
    with torch.autocast("cpu"):
        assert find_norm(LlamaRMSNorm(16), {}) == expected
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert find_norm(LlamaRMSNorm(16), {}) == expected
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cls", [LlamaRMSNorm, GemmaRMSNorm, T5LayerNorm, nn.LayerNorm, Qwen3NextRMSNormGated])
def test_answers_agree_in_every_dtype(
    cls: Callable[[int], nn.Module], dtype: torch.dtype, weight_dtype: torch.dtype
) -> None:
    norm = cls(16)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
    norm = norm.to(weight_dtype)
    x = torch.randn(2, 3, 16).to(dtype)
    arguments = (x, x.flip(0)) if cls is Qwen3NextRMSNormGated else (x,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of mixed dtypes
        try:
            exact = norm(*arguments)
        except RuntimeError:
            return  # nn.LayerNorm takes few mixtures
    convert(norm)
    answer = norm(*arguments)
    assert answer.dtype == exact.dtype
    short = {dtype, weight_dtype} & {torch.float16, torch.bfloat16}
    assert relative_error(answer, exact) < (2e-2 if short else 1e-3)


def norm_classes() -> dict[str, type[nn.Module]]:
    """Return every class of transformers' models that is named a norm and is independent of others, by name.

    Classes with the same code count once. They are read from the files: importing all of them takes half a minute.
    """
    classes: dict[str, type[nn.Module]] = {}
    codes: set[str] = set()
    scope = {name: vars(torch)[name] for name in ("Tensor", "nn")} | {"torch": torch, "F": F, "ACT2FN": ACT2FN}
    for file in sorted(Path(transformers.models.__path__[0]).glob("*/modeling_*.py")):
        for name, rest in re.findall(
            r"^class (\w*Norm\w*)(\((?:torch\.)?nn\.\w+\):\n.*?)(?=^\S)", file.read_text(), re.M | re.S
        ):
            if rest not in codes:
                codes.add(rest)
                local: dict[str, Any] = {}
                try:
                    exec(f"from __future__ import annotations\nclass {name}{rest}", scope, local)
                except Exception:  # needs more of its file
                    continue
                classes[f"{file.parent.name}.{name}"] = local[name]
    return classes


def built(cls: type[nn.Module]) -> nn.Module | None:
    """Return the class built with one width and one eps, or None if it needs anything else."""
    values = {"eps": 1e-6, "epsilon": 1e-6, "variance_epsilon": 1e-6, "bias": True, "elementwise_affine": True}
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            arguments[name] = values.get(name, 16)
    try:
        module = cls(**arguments)
        module(
            torch.randn(2, 3, 16),
            *([torch.randn(2, 3, 16)] if "gate" in inspect.signature(cls.forward).parameters else []),
        )
    except Exception:
        return None
    return module


def test_norms_of_transformers() -> None:
    """Of the norms that can be built from a width, 95 % are recognised, and all of these correctly."""
    modules = {name: module for name, cls in norm_classes().items() if (module := built(cls)) is not None}
    known = {name: norm for name, module in modules.items() if (norm := find_norm(module, {})) is not None}
    unknown = ", ".join(sorted(modules.keys() - known.keys()))
    assert len(modules) > 150
    assert len(known) >= 0.95 * len(modules), f"{len(known)} of {len(modules)}; not known: {unknown}"
    for name, norm in known.items():
        module, parameters = modules[name], dict(modules[name].named_parameters())
        for parameter in parameters.values():
            nn.init.uniform_(parameter, -2, 2)
        x = torch.randn(6, 5, 16) * torch.logspace(-4, 2, 5)[:, None]
        arguments = (x,) if norm.gate is None else (x, x.flip(0))
        with torch.no_grad():
            exact, formula = module(*arguments), norm.exact(x, arguments[1] if norm.gate else None, parameters)
        assert torch.allclose(exact, formula, rtol=1e-3, atol=1e-5), name
