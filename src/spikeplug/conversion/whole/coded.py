"""Plugs of modules whose weights are integers: linear layers, embeddings and convolutions of a whole spiking model.

The module keeps its name and class. Its `weight` becomes an int8 parameter, with two buffers beside it:
`weight_threshold`, int32, a firing threshold per row, and `weight_unit`, int32, the exponent all thresholds share.
So state_dict, save_pretrained and from_pretrained know nothing but tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from spikeplug import library
from spikeplug.conversion.plug import Plug, refuse_proxies
from spikeplug.conversion.redirection import is_dtype_of_integers
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.weights.packing import pack, packed_width, unpack

#: Names of the buffers beside an int8 weight.
THRESHOLD, UNIT = "weight_threshold", "weight_unit"
#: Attribute of a module: its own parameters by name, or None if they were freed.
KEPT = "spikeplug_kept"
#: Attribute of a module whose config said that the output layer is tied to the embedding.
TIED = "spikeplug_tied"
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def exchange(module: nn.Module, **tensors: Tensor) -> None:
    """Put parameters, or buffers, into a module in place of its own, which it keeps in an attribute for `restore`."""
    kept = vars(module).setdefault(KEPT, {})
    for name, tensor in tensors.items():
        place: dict[str, Any] = module._buffers if name in module._buffers else module._parameters
        kept.setdefault(name, place.get(name))
        place[name] = tensor if place is module._buffers else nn.Parameter(tensor, requires_grad=False)


def untie(model: nn.Module) -> None:
    """Let the configs of a model say that its output layer is not tied to its embedding; `restore` undoes it."""
    for module in model.modules():
        if getattr(getattr(module, "config", None), "tie_word_embeddings", False) is True:
            vars(module)[TIED] = True
            module.config.tie_word_embeddings = False  # type: ignore[union-attr]


def restore(module: nn.Module) -> None:
    """Give a module the parameters back that `exchange` took from it, and tie it again if `untie` untied it.

    If they were freed, it gets empty ones on the meta device, which no function takes.
    """
    if is_freed(module):
        vars(module)[KEPT] = {
            name: nn.Parameter(torch.empty_like(parameter, dtype=torch.float32, device="meta"))
            for name, parameter in module._parameters.items()
            if parameter is not None
        }
    for name, tensor in vars(module).pop(KEPT, {}).items():
        (module._buffers if name in module._buffers else module._parameters)[name] = tensor
    if vars(module).pop(TIED, False):
        module.config.tie_word_embeddings = True  # type: ignore[union-attr]


def free(model: nn.Module) -> None:
    """Forget the parameters that the model's modules keep: memory is freed, and it can no longer be reverted."""
    for module in model.modules():
        if KEPT in vars(module):
            vars(module)[KEPT] = None


def is_freed(module: nn.Module) -> bool:
    """Return whether the module's own parameters are gone: freed, or never loaded."""
    return KEPT in vars(module) and vars(module)[KEPT] is None


class CodedPlug(Plug):
    """Run a module with integer weights, which `install` puts into it.

    levels, block, rotation  of the inputs, see the operator `linear`
    group                    inputs of a row that share a factor, in a weight of int4 groups, which is saved packed; 0:
                             int8 weights
    shape                    of the weight
    path                     of the module, for messages
    dense                    gives the float weight that is still to be rounded, (rows, columns), and its bias or None
    round                    what rounds `dense` at the first call, from the inputs of that call
    watch                    what sees the inputs of every call, with this plug; None: nothing
    """

    label = "spiking integers"
    #: Rows of the weight are its second dimension (transformers' Conv1D).
    transposed = False

    def __init__(
        self,
        module: nn.Module,
        numerics: Numerics,
        levels: int = 127,
        block: int = 0,
        rotation: int = 0,
        group: int = 0,
    ) -> None:
        super().__init__(module, numerics)
        self.levels, self.block, self.rotation, self.group = levels, block, rotation, group
        self.shape = self.own("weight").shape
        self.path = ""
        self.dense: Callable[[], tuple[Tensor, Tensor | None]] | None = None
        self.round: Callable[[CodedPlug, Tensor], None] | None = None
        self.watch: Callable[[CodedPlug, Tensor], None] | None = None

    def moved_to(self, module: nn.Module) -> None:
        """Put a plug of its own into a shallow copy of the module, with dicts of its own that `restore` may change."""
        super().moved_to(module)
        for name in ("_parameters", "_buffers", KEPT):
            if vars(module).get(name) is not None:
                vars(module)[name] = dict(vars(module)[name])

    def install(self, mantissa: Tensor, threshold: Tensor, unit: Tensor, bias: Tensor | None) -> None:
        """Put integer weights into the module; `restore` brings its own parameters back.

        mantissa  int8 (rows, columns);  threshold  int32 (rows,);  unit  int32 ();  bias  float (rows,) or None
        """
        exchange(self.module, weight=self._from_rows(mantissa), **({} if bias is None else {"bias": bias}))
        self.module.register_buffer(THRESHOLD, threshold)
        self.module.register_buffer(UNIT, unit)
        self.dense = self.round = None

    def packed(self, name: str) -> Tensor:
        """Return the weight of int4 groups as a folder holds it, uint8. name: for the message if it is none."""
        return pack(self.as_rows(self.own("weight")), self.group, name)

    def unpacked(self, weight: Tensor) -> Tensor:
        """Return a weight that is as a folder holds it as the int8 that run."""
        return self._from_rows(unpack(weight, self.rows_and_columns[1], self.group))

    @property
    def rows_and_columns(self) -> tuple[int, int]:
        """Return the size of the weight as a matrix."""
        first, *others = self.shape
        return (*others, first) if self.transposed else (first, prod(others))  # type: ignore[return-value]

    @property
    def size_in_folder(self) -> tuple[int, ...]:
        """Return the size of the weight in a folder: of its packed rows in int4 groups, else its own."""
        rows, columns = self.rows_and_columns
        return (rows, packed_width(columns, self.group)) if self.group else tuple(self.shape)

    def _from_rows(self, weight: Tensor) -> Tensor:
        return (weight.T if self.transposed else weight).contiguous().view(self.shape)

    def detach(self) -> None:
        """Undo `attach`, and remove the integers' buffers. `restore` gives the module its own parameters back."""
        super().detach()
        for name in (THRESHOLD, UNIT):
            self.module._buffers.pop(name, None)

    @torch.compiler.disable(reason="a graph would read the dtype of int8 weights")  # type: ignore[untyped-decorator]
    def own_forward(
        self, instead: Mapping[Callable[..., Any], Callable[..., Tensor]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run the module's own forward with something else in place of some torch functions."""
        with _Own(instead):
            return self.original(*args, **kwargs)

    def own(self, name: str) -> Tensor:
        """Return a parameter of the module that it is known to have."""
        parameter = self.module._parameters[name]
        assert parameter is not None
        return parameter

    def as_rows(self, weight: Tensor) -> Tensor:
        """Return a weight in the module's layout as (rows, columns)."""
        return weight.T if self.transposed else weight

    def linear(self, x: Tensor, bias: bool = True, groups: int = 1) -> Tensor:
        """Return the linear operator's result for x (..., columns); rounds the weight first if that is left to do.

        bias    add the module's bias, if it has one
        groups  operators side by side, each with its share of x and of the rows
        """
        if self.round is not None:
            self.round(self, x)
        if self.watch is not None:
            for part in x.chunk(groups, -1):
                self.watch(self, part)
        # Buffers from their dict: torch's module looks names up in Python. Weights may be attributes (pruning).
        module, buffers = cast(Any, self.module), self.module._buffers
        weight, threshold, unit = self.as_rows(module.weight), buffers[THRESHOLD], buffers[UNIT]
        how, offset = (self.levels, self.block, self.rotation), module.bias if bias else None
        operator = library.OPERATORS["linear"]
        if groups == 1:
            return operator(x, weight, threshold, unit, offset, *how, numerics=self.numerics)
        assert threshold is not None
        biases = (None,) * groups if offset is None else offset.chunk(groups)
        parts = zip(x.chunk(groups, -1), weight.chunk(groups), threshold.chunk(groups), biases, strict=True)
        return torch.cat([operator(x, w, t, unit, b, *how, numerics=self.numerics) for x, w, t, b in parts], -1)


class LinearPlug(CodedPlug):
    """Run a linear layer of integers: `nn.Linear`, or a subclass that calls F.linear, or x @ weight.T, on its own."""

    label = "spiking linear"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.detached:
            return self.original(*args, **kwargs)
        if has_own_forward(self.module):
            instead = {F.linear: lambda x, *_, **__: self.linear(x), **dict.fromkeys(_PRODUCTS, self._times)}
            return self.own_forward(instead, args, kwargs)
        (x,) = (*args, *kwargs.values())
        refuse_proxies(self.module, (x,))
        return self.linear(x)

    def _times(self, x: Tensor, other: Tensor) -> Tensor:
        if other.data_ptr() != self.own("weight").data_ptr():  # while calibrating, it is the float weight
            return x @ other
        return self.linear(x, bias=False)


_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__)


class TransposedLinearPlug(LinearPlug):
    """Run transformers' Conv1D, a linear layer whose weight is (columns, rows)."""

    transposed = True


class EmbeddingPlug(CodedPlug):
    """Look up rows of an int8 table; each is times its threshold, which is exact in float32.

    instead  a float table to look up in its place, for measurements; None: none
    """

    label = "spiking embedding"
    instead: Tensor | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.detached:
            return self.original(*args, **kwargs)
        refuse_proxies(self.module, args)
        if has_own_forward(self.module):
            instead = {F.embedding: lambda ids, *_, **__: self._rows(ids), Tensor.__getitem__: self._item}
            return self.own_forward(instead, args, kwargs)
        (ids,) = (*args, *kwargs.values())
        return self._rows(ids)

    def _rows(self, ids: Any) -> Tensor:
        if self.instead is not None:
            return self.instead[ids]
        module: Any = self.module
        level, threshold = module.weight[ids].to(torch.int32), module.weight_threshold[ids].unsqueeze(-1)
        return torch.ldexp((level * threshold).to(torch.float32), module.weight_unit)

    def _item(self, x: Tensor, index: Any) -> Tensor:
        return self._rows(index) if x is self.module._parameters["weight"] else x[index]


class ConvolutionPlug(CodedPlug):
    """Run a convolution as a linear layer on its patches; a patch is one vector."""

    label = "spiking convolution"

    def as_rows(self, weight: Tensor) -> Tensor:
        """Return a weight in the module's layout as (rows, columns)."""
        return weight.flatten(1)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.detached:
            return self.original(*args, **kwargs)
        (x,) = (*args, *kwargs.values())
        refuse_proxies(self.module, (x,))
        module: Any = self.module
        if not x.is_floating_point():
            raise SpikeplugError(
                f"{type(module).__name__} got a {x.dtype} tensor: give floats; and leave torch.compile out where the "
                "model casts its inputs to the dtype of this weight, which is int8."
            )
        line = isinstance(module, nn.Conv1d)
        single = x.dim() == 2 + (not line)
        x = x.unsqueeze(0) if single else x
        x = x.unsqueeze(-2) if line else x
        if isinstance(module.padding, str) or module.padding_mode != "zeros":
            mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
            around = module._reversed_padding_repeated_twice
            x, padding = F.pad(x, [*around, *([0, 0] if line else [])], mode=mode), (0, 0)
        else:
            padding = (0, module.padding[0]) if line else tuple(module.padding)
        kernel, stride, dilation = (
            (1, *size) if line else tuple(size) for size in (module.kernel_size, module.stride, module.dilation)
        )
        size = [
            (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)
        ]
        patches = F.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride).transpose(1, 2)
        y = self.linear(patches, groups=module.groups).transpose(1, 2).unflatten(-1, size)
        y = y.squeeze(-2) if line else y
        return y.squeeze(0) if single else y


class _Own(TorchFunctionMode):
    """Run something else in place of some torch functions, within the `with` block; leave all other calls alone."""

    lets_operators_pass = True

    def __init__(self, instead: Mapping[Callable[..., Any], Callable[..., Tensor]]) -> None:
        super().__init__()
        self.instead = instead

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if is_dtype_of_integers(func, args):
            return torch.float32
        return self.instead.get(func, func)(*args, **(kwargs or {}))


def coded_plug(module: nn.Module) -> type[CodedPlug] | None:
    """Return the class of the plug that runs a module with integer weights, or None if there is none for it."""
    weight = module._parameters.get("weight")
    if weight is None or not weight.is_floating_point():
        return None
    if isinstance(module, nn.Linear):
        return LinearPlug
    if type(module) is Conv1D:
        return TransposedLinearPlug
    if isinstance(module, nn.Embedding):
        return EmbeddingPlug if module.max_norm is None else None
    if isinstance(module, CONVOLUTIONS) and type(module).forward in _FORWARDS:
        return ConvolutionPlug
    return None


def layers_of(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of the model's layers that a plug can run with integer weights."""
    return tuple(path for path, module in model.named_modules() if coded_plug(module) is not None)


def columns_of(module: nn.Module) -> int:
    """Return the number of inputs that each row of a layer's weight has."""
    weight = cast(Tensor, module._parameters["weight"])
    return weight.shape[0] if isinstance(module, Conv1D) else weight[0].numel()


#: What a subclass may call with its own weight: a plug runs these with integers. `T`: for x @ weight.T.
OWN_CALLS: dict[type[nn.Module], frozenset[str]] = {
    nn.Linear: frozenset({"linear", "T", "matmul", "__matmul__"}),
    nn.Embedding: frozenset({"embedding", "__getitem__"}),
}


def has_own_forward(module: nn.Module) -> bool:
    """Return whether a layer is of a subclass whose forward is not that of torch's or transformers' layer."""
    return type(module).forward not in _PLAIN_FORWARDS


def is_layer(module: nn.Module) -> bool:
    """Return whether a module is a layer that a weight defines: linear, a convolution or an embedding."""
    return isinstance(module, (nn.Linear, nn.Bilinear, Conv1D, nn.Embedding, nn.modules.conv._ConvNd))


_FORWARDS = frozenset(cls.forward for cls in CONVOLUTIONS)
_PLAIN_FORWARDS = _FORWARDS | {nn.Linear.forward, nn.Embedding.forward, Conv1D.forward}
