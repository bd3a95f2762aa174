"""List the ways to change a model after `convert`: dtypes, adapters, layers, weights, wrappers, offloading."""

from __future__ import annotations

import copy
import functools
import types
import warnings
from collections.abc import Callable
from typing import Any

import accelerate
import peft
import torch
from torch import Tensor, nn
from torch.nn.utils import fusion, parametrizations, parametrize, prune
from way import Block, Way, block, eager, llama, quietly


def _changed(change: Callable[[Any], Any]) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return the way that changes the model in place and calls it."""

    def run(model: nn.Module, x: Tensor) -> Tensor:
        change(model)
        return eager(model, x)

    return run


def _llama_as(dtype: torch.dtype) -> Callable[[nn.Module, Tensor], Tensor]:
    return _changed(lambda model: model.to(dtype))


def _autocast(dtype: torch.dtype) -> Callable[[nn.Module, Tensor], Tensor]:
    def run(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return eager(model, x).float()

    return run


def _adapted(model: Any, config: Any) -> Any:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own: it finds no file of the base model
        return peft.get_peft_model(model, config).eval()


def _peft(
    config: Callable[[], Any], finish: Callable[[Any], Any] | None = None
) -> Callable[[nn.Module, Tensor], Tensor]:
    def run(model: nn.Module, x: Tensor) -> Tensor:
        adapted = _adapted(model, config())
        return eager(finish(adapted) if finish else adapted, x)

    return run


def _lora(**how: Any) -> Any:
    return peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, **how)


def _ia3() -> Any:
    return peft.IA3Config(
        target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        init_ia3_weights=False,
        task_type="CAUSAL_LM",
    )


def _prompt() -> Any:
    return peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)


def _merged(adapted: Any) -> Any:
    return adapted.merge_and_unload()


def _pruned(model: Any) -> None:
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1


def _inserted(model: Any) -> None:
    layers = list(model.model.layers)
    model.model.layers = nn.ModuleList([layers[0], copy.deepcopy(layers[0]), *layers[1:]])
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index
    model.config.num_hidden_layers = 3


def _reordered(model: Any) -> None:
    model.model.layers = nn.ModuleList(list(model.model.layers)[::-1])


def _renamed(model: Any) -> None:
    model.act, model.activation = model.activation, nn.Identity()
    model.norm = nn.Sequential(model.act, model.norm)


def _given_new_layer(model: Any) -> None:
    model.activation = nn.SiLU()


def _wrapped(model: Any) -> None:
    inner = model.activation.forward
    model.activation.forward = lambda x: inner(x) + 1


def _wrapped_properly(model: Any) -> None:
    inner = model.forward

    @functools.wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs) + 1

    model.forward = forward


def _patched(model: Any) -> None:
    """Replace a part's forward by one that does not call it."""
    model.activation.forward = types.MethodType(lambda self, x: torch.sigmoid(x), model.activation)


def _hooked(model: Any) -> None:
    model.norm.register_forward_hook(lambda module, inputs, output: torch.tanh(output))


def _reclassed(model: Any) -> None:
    class Louder(Block):
        def core(self, x: Tensor) -> Tensor:
            return 2 * super().core(x)

    model.__class__ = Louder


def _parametrized(model: Any) -> None:
    parametrize.register_parametrization(model.norm, "weight", _Doubled())


class _Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def _normed_weights(model: Any) -> None:
    parametrizations.weight_norm(model.second)


def _pruned_weights(model: Any) -> None:
    prune.l1_unstructured(model.first, "weight", amount=0.5)


def _quantized(model: nn.Module, x: Tensor) -> Tensor:
    return eager(quietly(lambda: torch.ao.quantization.quantize_dynamic(model, {nn.Linear})), x)


def _narrow() -> tuple[nn.Module, Tensor]:
    model, x = block()
    return model.float(), x.float()


class _Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.act = nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))  # type: ignore[no-any-return]


def _convolution() -> tuple[nn.Module, Tensor]:
    return _Convolution().eval(), torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(1))


def _fused(model: Any) -> None:
    model.conv, model.norm = fusion.fuse_conv_bn_eval(model.conv, model.norm), nn.Identity()


def _offloaded(model: Any) -> None:
    accelerate.cpu_offload(model, execution_device="cpu")


def _dispatched(model: Any) -> None:
    accelerate.dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True)


def _prepared(model: nn.Module, x: Tensor) -> Tensor:
    return eager(accelerate.Accelerator(cpu=True).prepare(model), x)


WAYS = (
    Way("`.double()`", _changed(lambda model: model.double()), llama),
    Way("`.half()`", _llama_as(torch.float16), llama),
    Way("`.to(torch.bfloat16)`", _llama_as(torch.bfloat16), llama),
    Way("`torch.autocast`, bfloat16", _autocast(torch.bfloat16), llama, within=5e-2, note="of the float32 result"),
    Way("`torch.autocast`, float16", _autocast(torch.float16), llama, within=1e-2, note="of the float32 result"),
    Way("PEFT: LoRA", _peft(_lora), llama),
    Way("PEFT: LoRA, merged", _peft(_lora, _merged), llama),
    Way("PEFT: DoRA", _peft(lambda: _lora(use_dora=True)), llama),
    Way("PEFT: DoRA, `merge_and_unload`", _peft(lambda: _lora(use_dora=True), _merged), llama),
    Way("PEFT: IA³", _peft(_ia3), llama),
    Way("PEFT: prompt tuning", _peft(_prompt), llama, reference=_peft(_prompt)),
    Way("PEFT: layer replication", _peft(lambda: _lora(layer_replication=[(0, 2), (1, 2)])), llama),
    Way("layers pruned", _changed(_pruned), llama, moved=True),
    Way("a copy of a layer inserted", _changed(_inserted), llama),
    Way("layers reordered", _changed(_reordered), llama),
    Way("layers renamed", _changed(_renamed), moved=True),
    Way("a layer replaced by an exact one", _changed(_given_new_layer), moved=True),
    Way("`forward` of a part wrapped", _changed(_wrapped)),
    Way("`forward` of the model wrapped", _changed(_wrapped_properly)),
    Way("`forward` of a part replaced", _changed(_patched), moved=True),
    Way("another class set", _changed(_reclassed)),
    Way("a hook that computes a nonlinearity", _changed(_hooked)),
    Way("a parametrised weight", _changed(_parametrized)),
    Way("`weight_norm`", _changed(_normed_weights)),
    Way("`prune.l1_unstructured`", _changed(_pruned_weights)),
    Way("`quantize_dynamic`", _quantized, _narrow, _quantized),
    Way("`fuse_conv_bn_eval`", _changed(_fused), _convolution, moved=True),
    Way("accelerate: `cpu_offload`", _changed(_offloaded), llama),
    Way("accelerate: `dispatch_model`", _changed(_dispatched), llama),
    Way("accelerate: `Accelerator.prepare`", _prepared, llama),
)
