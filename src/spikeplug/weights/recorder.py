"""Record how tensors flow through a model: spaces, who writes them, who reads them, and what depends on their basis."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from spikeplug.errors import SpikeplugError
from spikeplug.weights.inputs import tiny_inputs


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions that change no value of their first tensor (dropout: in evaluation mode).
_IDENTITIES = _words(
    "to float double half bfloat16 type type_as contiguous clone detach dropout dropout1d dropout2d feature_dropout "
    "cpu cuda data"
)
# Functions that move elements of their first tensor, and change none.
_VIEWS = _words(
    "view reshape transpose swapaxes swapdims permute movedim moveaxis flatten unflatten unsqueeze squeeze expand "
    "expand_as broadcast_to repeat repeat_interleave tile __getitem__ getitem narrow select index_select chunk split "
    "split_with_sizes tensor_split unbind roll flip T mT t view_as reshape_as"
)
_SUMS = _words("add sub __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ add_ sub_ rsub")
_PRODUCTS = _words("mul multiply __mul__ __rmul__ __imul__ mul_ div true_divide __truediv__ __itruediv__ div_")
_MIXERS = _words("matmul __matmul__ bmm")
_LINEAR_FORWARDS = frozenset({nn.Linear.forward, Conv1D.forward})
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONVOLUTION_FORWARDS = frozenset(cls.forward for cls in _CONVOLUTIONS)
# Outputs of a model that are not what it is run for.
_PASSED_BACK = _words(
    "encoder_last_hidden_state encoder_hidden_states decoder_hidden_states hidden_states past_key_values "
    "encoder_attentions decoder_attentions cross_attentions attentions"
)

Kind = Literal["linear", "embedding", "convolution", "parameter", "norm", "computed"]


@dataclass(frozen=True)
class Writer:
    """What gives a tensor its values.

    kind  "linear", "embedding", "convolution", "norm": a module of that kind; "parameter": a bare parameter or buffer;
          "computed": a function
    name  path of the module, name of the parameter, or function and module that calls it
    """

    kind: Kind
    name: str


@dataclass(frozen=True)
class Obstacle:
    """A use of some channels of a space that depends on the basis. reason: in words."""

    reason: str
    channels: frozenset[int]


@dataclass(eq=False)
class Space:
    """A basis of `width` channels that some tensors share.

    writers    what gives these tensors their values
    readers    path and columns of each linear layer that reads them, once per call
    norms      paths of the norms that read all channels in order
    obstacles  uses that depend on the basis
    heads      channels that attention or another matrix product mixes over tokens, one tuple per head
    index      number of the space, in the order in which they were made
    """

    width: int
    writers: list[Writer] = field(default_factory=list)
    readers: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)
    heads: set[tuple[int, ...]] = field(default_factory=set)
    index: int = 0
    joined: Space | None = None

    def root(self) -> Space:
        """Return the space that this one was joined to, or itself."""
        space = self
        while space.joined is not None:
            space = space.joined
        return space

    def join(self, other: Space) -> None:
        """Make one space of both; the older one stays."""
        ours, theirs = sorted((self.root(), other.root()), key=lambda space: space.index)
        if ours is theirs:
            return
        ours.writers += [writer for writer in theirs.writers if writer not in ours.writers]
        ours.readers += theirs.readers
        ours.norms += theirs.norms
        ours.obstacles += theirs.obstacles
        ours.heads |= theirs.heads
        theirs.joined = ours


@dataclass(frozen=True)
class _Trace:
    """Where a tensor's values come from. channels: the channel of each element in the space, int32, of its shape."""

    space: Space
    channels: Tensor


class Recorder(TorchFunctionMode):
    """Follow every tensor of one run. Enter it by `run_recorded`.

    norms_run    paths of the norms that ran, in order
    linears_run  paths of the linear layers that ran, in order
    """

    def __init__(self, model: nn.Module, norms: frozenset[str]) -> None:
        super().__init__()
        self.norms_run: list[str] = []
        self.linears_run: list[str] = []
        self._norms = norms
        self._spaces: list[Space] = []
        self._outputs: dict[str, Space] = {}
        self._inputs: dict[str, list[Space]] = {}
        self._norm_inputs: dict[str, Space] = {}
        self._called: set[str] = set()
        self._traces: dict[int, tuple[Tensor, _Trace]] = {}
        self._path: list[str] = [""]
        self._opaque = 0
        tensors = itertools.chain(model.named_parameters(), model.named_buffers())
        self._bare = {id(tensor): name for name, tensor in tensors if tensor.is_floating_point() and tensor.dim() > 0}

    def unreached(self, model: nn.Module) -> tuple[str, ...]:
        """Return the paths of linear layers, embeddings and convolutions that did not run.

        A layer whose weight ran in another layer, or was read by a function, counts as reached.
        """
        layers = {
            path: module for path, module in model.named_modules() if self._kind(path, module) not in (None, "norm")
        }
        reached = {id(layers[path].weight) for path in layers.keys() & self._called} | self._traces.keys()
        return tuple(p for p, layer in layers.items() if p not in self._called and id(layer.weight) not in reached)

    def roots(self) -> list[Space]:
        """Return the spaces, joined ones once, in the order in which the model made them."""
        return [space for space in self._spaces if space.joined is None]

    def output_of(self, path: str) -> Space:
        """Return the space that a module that ran writes to."""
        return self._outputs[path].root()

    def inputs_of(self, path: str) -> set[Space]:
        """Return the spaces that a linear layer read."""
        return {space.root() for space in self._inputs.get(path, [])}

    def input_of_norm(self, path: str) -> Space:
        """Return the space that a norm read."""
        return self._norm_inputs[path].root()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._opaque:
            self._opaque += 1
            try:
                self._record(func, args, kwargs or {}, result)
            finally:
                self._opaque -= 1
        return result

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Follow the calls of the model's modules within the block."""
        handles: list[RemovableHandle] = []
        for path, module in model.named_modules():
            kind = self._kind(path, module)
            handles.append(module.register_forward_pre_hook(self._entering(path, kind), with_kwargs=True))
            handles.append(module.register_forward_hook(self._leaving(path, kind), always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _kind(self, path: str, module: nn.Module) -> Kind | None:
        if path in self._norms:
            return "norm"
        if "forward" in vars(module):
            return None  # somebody's stand-in, which may compute anything
        forward = type(module).forward
        if forward in _LINEAR_FORWARDS:
            return "linear"
        if isinstance(module, nn.Embedding):
            return "embedding"
        return "convolution" if forward in _CONVOLUTION_FORWARDS else None

    def _entering(self, path: str, kind: Kind | None) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._path.append(path)
            if kind is None or self._opaque:
                self._opaque += bool(self._opaque)
                return
            self._opaque += 1
            traces = [trace for value in _tensors((args, kwargs)) if (trace := self._trace(value)) is not None]
            self._read(path, kind, traces)

        return hook

    def _leaving(self, path: str, kind: Kind | None) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._path.pop()
            self._opaque -= bool(self._opaque)
            if kind is None or self._opaque or not isinstance(output, Tensor):
                return
            self._opaque += 1
            axis = 1 if kind == "convolution" else -1
            space = self._outputs.get(path)
            if space is None:
                space = self._outputs[path] = self._new(output.shape[axis], Writer(kind, path))
            self._traces[id(output)] = (output, _Trace(space, _numbered(output, axis)))
            self._opaque -= 1

        return hook

    def _read(self, path: str, kind: Kind, traces: list[_Trace]) -> None:
        """Record that the module `path` reads these tensors."""
        self._called.add(path)
        run = {"norm": self.norms_run, "linear": self.linears_run}.get(kind)
        if run is not None and path not in run:
            run.append(path)
        if kind == "embedding":
            return
        if kind == "convolution" or len(traces) != 1:
            for trace in traces:
                self._object(trace, f"{path} reads it")
            return
        (trace,) = traces
        columns = _columns(trace.channels)
        space = trace.space
        if columns is None:
            self._object(trace, f"{path} reads channels that differ from token to token")
        elif kind == "linear":
            space.root().readers.append((path, columns))
            self._inputs.setdefault(path, []).append(space)
        else:
            self._norm_inputs[path] = space
            if columns == tuple(range(space.width)):
                space.root().norms.append(path)
            else:
                self._object(trace, f"{path} normalises part of it")

    def _new(self, width: int, writer: Writer) -> Space:
        space = Space(width, [writer], index=len(self._spaces))
        self._spaces.append(space)
        return space

    def _trace(self, tensor: Tensor) -> _Trace | None:
        """Return where a tensor comes from, or None if it is a constant. A bare parameter is a writer of its own."""
        known = self._traces.get(id(tensor))
        if known is not None:
            return known[1]
        name = self._bare.get(id(tensor))
        if name is None:
            return None
        trace = _Trace(self._new(tensor.shape[-1], Writer("parameter", name)), _numbered(tensor, -1))
        self._traces[id(tensor)] = (tensor, trace)
        return trace

    def _keep(self, tensor: Any, space: Space, channels: Tensor) -> None:
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.shape == channels.shape:
            self._traces[id(tensor)] = (tensor, _Trace(space, channels))

    def _object(self, trace: _Trace, reason: str) -> None:
        channels = frozenset(trace.channels.unique().tolist())
        space = trace.space.root()
        if all(obstacle.reason != reason or not channels <= obstacle.channels for obstacle in space.obstacles):
            space.obstacles.append(Obstacle(reason, channels))

    def finish(self, output: Any) -> None:
        """Record which tensors the model returns, and which weights are read outside of their modules."""
        for tensor in returned(output):
            if (known := self._traces.get(id(tensor))) is not None:
                self._object(known[1], "the model returns it")
        for _, trace in list(self._traces.values()):
            for writer in trace.space.root().writers:
                owner = writer.name.rpartition(".")[0]
                if writer.kind == "parameter" and owner in self._called:
                    space = self._outputs[owner]
                    self._object(
                        _Trace(space, torch.arange(space.width)), f"{writer.name} is read outside of its module"
                    )

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        name = getattr(func, "__name__", "")
        if name == "__get__":
            name = getattr(func.__self__, "__name__", "")
        if not any(isinstance(value, Tensor) for value in _flat(result)) and name != "__setitem__":
            return
        tensors = list(_tensors((args, kwargs)))
        traces = [trace for tensor in tensors if (trace := self._trace(tensor)) is not None]
        if not traces:
            return
        if not (
            (name in _IDENTITIES and self._identity(tensors[0], result))
            or (name in _VIEWS and self._view(func, args, kwargs, tensors[0], result))
            or (name in ("cat", "concat", "stack") and self._cat(func, args, kwargs, result))
            or (name in _SUMS and self._sum(name, args, result))
            or (name in _PRODUCTS and self._product(name, args, result))
            or (name in ("sum", "mean") and self._reduced(args, kwargs, traces[0], result))
            or (name in _MIXERS and self._mixed(args, tensors, result))
            or (name == "scaled_dot_product_attention" and self._attended(args, kwargs, result))
        ):
            self._other(name, traces, args, result)

    def _where(self, name: str) -> str:
        return f"{name.strip('_')} in {self._path[-1] or 'the model itself'}"

    def _other(self, name: str, traces: Iterable[_Trace], args: tuple[Any, ...], result: Any) -> None:
        """Record a function that depends on the basis: an obstacle for what it reads, a new space for its result."""
        outputs = [value for value in _tensors(result) if value.is_floating_point() and value.dim() > 0]
        if name == "__setitem__":
            outputs = list(_tensors(args[0]))
        if not outputs:
            return
        where = self._where(name)
        for trace in traces:
            self._object(trace, f"{where} reads it")
        for output in outputs:
            space = self._new(output.shape[-1], Writer("computed", where))
            self._keep(output, space, _numbered(output, -1))

    def _identity(self, source: Tensor, result: Any) -> bool:
        trace = self._trace(source)
        if trace is None or not isinstance(result, Tensor) or result.shape != source.shape:
            return False
        self._keep(result, trace.space, trace.channels)
        return True

    def _view(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], source: Tensor, result: Any) -> bool:
        trace = self._trace(source)
        if trace is None or any(isinstance(value, torch.dtype) for value in args):
            return False
        args, kwargs = _replaced((args, kwargs), source, trace.channels.contiguous())
        for moved, channels in zip(_tensors(result), _tensors(func(*args, **kwargs)), strict=True):
            self._keep(moved, trace.space, channels)
        return True

    def _cat(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> bool:
        # A cache starts with an empty tensor.
        parts = [part for part in _tensors(args[0] if args else kwargs["tensors"]) if part.numel() > 0]
        traces = [trace for part in parts if (trace := self._trace(part)) is not None]
        if len(traces) != len(parts):
            return False
        channels = func(
            [trace.channels for trace in traces], *args[1:], **{k: v for k, v in kwargs.items() if k != "tensors"}
        )
        roots = {trace.space.root() for trace in traces}
        if len(roots) > 1:
            # Tokens next to tokens: all have the same channels in the same places.
            columns = [_columns(trace.channels) for trace in traces]
            if None in columns or any(each != columns[0] for each in columns) or _columns(channels) != columns[0]:
                return False
            if any(root.width != traces[0].space.width for root in roots):
                return False
            for trace in traces[1:]:
                traces[0].space.join(trace.space)
        self._keep(result, traces[0].space, channels)
        return True

    def _sum(self, name: str, args: tuple[Any, ...], result: Tensor) -> bool:
        left, right = (self._trace(x) if isinstance(x, Tensor) else None for x in args[:2])
        if left is None or right is None:
            trace = left or right
            if trace is None or trace.channels.numel() == 0:
                return False
            self._object(trace, f"{self._where(name)} adds a constant to it")
            self._keep(result, trace.space, trace.channels.expand(result.shape).contiguous())
            return True
        channels = left.channels.expand(result.shape)
        if left.space.width != right.space.width or not torch.equal(channels, right.channels.expand(result.shape)):
            return False
        left.space.join(right.space)
        self._keep(result, left.space, channels.contiguous())
        return True

    def _product(self, name: str, args: tuple[Any, ...], result: Tensor) -> bool:
        """Record a product in which one factor is the same for all channels of a token: it commutes with rotations."""
        for mine, other in (args[:2], args[1::-1]):
            trace = self._trace(mine) if isinstance(mine, Tensor) else None
            if trace is None or ("div" in name and mine is not args[0]):
                continue
            channels = trace.channels.expand(result.shape).contiguous()
            if isinstance(other, Tensor) and not _is_constant_along_channels(other, channels):
                continue
            factor = self._trace(other) if isinstance(other, Tensor) else None
            if factor is not None:
                self._object(factor, f"{self._where(name)} reads it")
            self._keep(result, trace.space, channels)
            return True
        return False

    def _reduced(self, args: tuple[Any, ...], kwargs: dict[str, Any], trace: _Trace, result: Tensor) -> bool:
        """Record a sum or mean over dimensions along which the channel is the same."""
        dims = args[1] if len(args) > 1 else kwargs.get("dim")
        if dims is None or not isinstance(args[0], Tensor):
            return False
        keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
        lowest, highest = trace.channels.amin(dims, keep), trace.channels.amax(dims, keep)
        if not torch.equal(lowest, highest):
            return False
        self._keep(result, trace.space, lowest)
        return True

    def _mixed(self, args: tuple[Any, ...], tensors: list[Tensor], result: Tensor) -> bool:
        """Record a matrix product that mixes the rows of its right operand, which all have the same channels."""
        if len(args) < 2 or args[1].dim() < 2:
            return False
        value = self._trace(args[1])
        if value is None or not self._mix(value, result):
            return False
        weights = self._trace(args[0])
        if weights is not None:
            self._object(weights, f"{self._where('matmul')} reads it")
        return True

    def _attended(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> bool:
        named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        value = self._trace(named["value"])
        if value is None:
            return False
        groups = result.shape[-3] // named["value"].shape[-3] if result.dim() > 2 else 1
        if groups > 1:
            value = _Trace(value.space, value.channels.repeat_interleave(groups, -3))
        if not self._mix(value, result):
            return False
        for name in ("query", "key"):
            if (trace := self._trace(named[name])) is not None:
                self._object(trace, "attention reads it as a " + name)
        return True

    def _mix(self, value: _Trace, result: Tensor) -> bool:
        rows = value.channels[..., :1, :]
        if not torch.equal(rows.expand_as(value.channels), value.channels):
            return False
        value.space.root().heads |= {tuple(row) for row in rows.reshape(-1, rows.shape[-1]).tolist()}
        self._keep(result, value.space, rows.expand(result.shape).contiguous())
        return True


def run_recorded(model: nn.Module, norms: frozenset[str], inputs: Mapping[str, Any] | None) -> Recorder:
    """Run the model once and return what was recorded. Errors: SpikeplugError if it does not run on the inputs."""
    recorder = Recorder(model, norms)
    modes = {module: module.training for module in model.modules()}
    model.train(False)
    try:
        with torch.no_grad(), recorder.watching(model):
            arguments = tiny_inputs(model) if inputs is None else dict(inputs)
            with recorder:
                output = model(**arguments)
            recorder.finish(output)
    except SpikeplugError:
        raise
    except Exception as error:  # a third party's forward may raise anything
        raise SpikeplugError(
            f"the model does not run on the tiny input that its tensors are followed on ({type(error).__name__}: "
            f"{error}): give `inputs`, the arguments of its forward."
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    return recorder


def returned(output: Any) -> list[Tensor]:
    """Return the floating tensors of a model's output, without those that are only passed back to the model.

    Left out: caches, hidden states, and the encoder's output that a model returns next to its decoder's.
    """
    if isinstance(output, Mapping):
        output = [value for name, value in output.items() if name not in _PASSED_BACK]
    return [tensor for tensor in _tensors(output) if tensor.is_floating_point()]


def _numbered(tensor: Tensor, axis: int) -> Tensor:
    """Return int32 numbers 0, 1, ... along one axis of the tensor's shape."""
    shape = [1] * tensor.dim()
    shape[axis] = tensor.shape[axis]
    numbers = torch.arange(tensor.shape[axis], dtype=torch.int32, device=tensor.device)
    return numbers.view(shape).expand(tensor.shape).contiguous()


def _columns(channels: Tensor) -> tuple[int, ...] | None:
    """Return the channels of the last dimension if they are the same at every other place, else None."""
    rows = channels.reshape(-1, channels.shape[-1])
    if rows.shape[0] == 0 or not bool((rows == rows[0]).all()):
        return None
    return tuple(rows[0].tolist())


def _is_constant_along_channels(other: Tensor, channels: Tensor) -> bool:
    """Return whether `other`, broadcast to the shape of `channels`, has one value for all channels of a token."""
    if other.numel() == 1:
        return True
    shape = [1] * (channels.dim() - other.dim()) + list(other.shape)
    varies = [bool((channels != channels.narrow(axis, 0, 1)).any()) for axis in range(channels.dim())]
    return any(varies) and all(size == 1 for size, varying in zip(shape, varies, strict=True) if varying)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        yield value
        return
    for item in value:
        yield from _flat(item)


def _tensors(value: Any) -> Iterator[Tensor]:
    return (item for item in _flat(value) if isinstance(item, Tensor))


def _replaced(value: Any, old: Tensor, new: Tensor) -> Any:
    """Return nested tuples, lists and dicts with one tensor replaced by another."""
    if value is old:
        return new
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_replaced(item, old, new) for item in value)
    return value
