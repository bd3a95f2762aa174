"""Find how tensors flow through a model, by running it once on a tiny input. No architecture is named here.

Every tensor gets a *space*, a basis that its channels belong to, and for each of its elements the channel in it. Views
move the channels as they move the elements, so fused projections, heads and grouped queries need no case of their own.
Sums join spaces. Whatever depends on the basis is recorded as an obstacle, in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import nn

from spikeplug.errors import SpikeplugError
from spikeplug.hadamard import factors_of
from spikeplug.weights.recorder import Recorder, Space, Writer, run_recorded

#: Blocks of an online Hadamard transform that is not of the whole width. Their root is a power of two, so that scaling
#: is a shift.
ONLINE_BLOCKS = (1024, 256, 64, 16, 4)


class NormKind(Protocol):
    """What is known of a norm module; `spikeplug.conversion.norms.Norm` is one.

    operator  "rms_norm" or "layer_norm", over the last dimension
    eps       number added to the mean square or to the variance
    weight    name of the module's parameter that multiplies, or None
    offset    number added to the weight
    bias      name of the module's parameter that is added, or None
    gate      not None if a second argument multiplies
    """

    @property
    def operator(self) -> Literal["rms_norm", "layer_norm"]: ...
    @property
    def eps(self) -> float: ...
    @property
    def weight(self) -> str | None: ...
    @property
    def offset(self) -> float: ...
    @property
    def bias(self) -> str | None: ...
    @property
    def gate(self) -> str | None: ...


@dataclass(frozen=True)
class Reader:
    """A linear layer that reads a space: input j of the module at `path` is channel columns[j] of the space."""

    path: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class NormFold:
    """A norm, and the linear layers that read exactly its output.

    reason  why its gain does not fold; empty if it does
    """

    path: str
    readers: tuple[Reader, ...]
    reason: str = ""


@dataclass(frozen=True)
class Stream:
    """A residual stream: tensors of `width` channels that are sums of what its writers give.

    writers  linear layers, embeddings, convolutions and bare parameters
    norms    norms that read it; their outputs turn with it
    readers  linear layers that read it without a norm
    centred  True if its norms are LayerNorms, so that the writers' means have to be subtracted
    reason   why it cannot be rotated; empty if it can
    """

    width: int
    writers: tuple[Writer, ...]
    norms: tuple[str, ...]
    readers: tuple[Reader, ...]
    centred: bool
    reason: str = ""

    @property
    def name(self) -> str:
        """Return the stream's name: that of its first writer."""
        return self.writers[0].name


@dataclass(frozen=True)
class ValuePath:
    """Values of an attention: from the linear layer that writes them to those that read its output.

    writer   the module, or None if what writes the values is no linear layer
    heads    channels of the writer's output, one tuple per head
    readers  linear layers that read the mixed values
    reason   why it cannot be rotated; empty if it can
    """

    writer: Writer | None
    heads: tuple[tuple[int, ...], ...]
    readers: tuple[Reader, ...]
    reason: str = ""

    @property
    def name(self) -> str:
        """Return the path of the writer or, without one, that of the first reader."""
        return self.writer.name if self.writer else self.readers[0].path


@dataclass(frozen=True)
class DownProjection:
    """A linear layer that reads an activation or a product, not attention, and writes to a stream.

    block   size of the Hadamard transform that its input can take: the whole width, or one of `ONLINE_BLOCKS`; 0: none
    reason  why it can take none; empty if it can
    """

    path: str
    block: int
    reason: str = ""


@dataclass(frozen=True)
class Structure:
    """What folds and rotates in a model, and for what does not: the reason in words.

    norms, streams, values, downs  in the order in which the model runs them
    tied                           names of parameters that are one tensor, a tuple for each
    unreached                      linear layers, embeddings and convolutions that did not run
    """

    norms: tuple[NormFold, ...]
    streams: tuple[Stream, ...]
    values: tuple[ValuePath, ...]
    downs: tuple[DownProjection, ...]
    tied: tuple[tuple[str, ...], ...]
    unreached: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[str, ...]:
        """Return a sentence for each thing that does not fold or rotate."""
        if self.unreached:
            return (
                f"Nothing folds: {len(self.unreached)} layers, the first {self.unreached[0]}, did not run on the tiny "
                "input, so what they read is not known; give `inputs` that reach every layer.",
            )
        return (
            *(() if self.streams else ("No residual stream is rotated: no norm module reads a sum of layers.",)),
            *(f"The gain of {norm.path} stays: {norm.reason}." for norm in self.norms if norm.reason),
            *(
                f"The stream of {stream.name} is not rotated: {stream.reason}."
                for stream in self.streams
                if stream.reason
            ),
            *(f"The values of {value.name} are not rotated: {value.reason}." for value in self.values if value.reason),
            *(f"{down.path} gets no online Hadamard: {down.reason}." for down in self.downs if down.reason),
        )


def find_structure(
    model: nn.Module, norms: Mapping[str, NormKind], inputs: Mapping[str, Any] | None = None, largest_block: int = 64
) -> Structure:
    """Return what folds and rotates in a model. The model runs once, in evaluation mode, and is not changed.

    norms          kind of each norm module, by path
    inputs         arguments of its forward; None: a few tokens, or what transformers says the model takes
    largest_block  most channels of an online Hadamard transform

    Errors: SpikeplugError if the model does not run on the inputs, or no inputs are known for it.
    """
    recorder = run_recorded(model, frozenset(norms), inputs)
    folds = tuple(_norm_fold(path, norms[path], recorder) for path in recorder.norms_run)
    folds += tuple(NormFold(path, (), "it did not run") for path in norms if path not in recorder.norms_run)
    by_path = {fold.path: fold for fold in folds}
    roots = recorder.roots()
    streams = tuple(_stream(space, norms, by_path, recorder) for space in roots if _is_stream(space))
    values = tuple(path for space in roots if not _is_stream(space) for path in _value_paths(space, recorder))
    downs = tuple(_downs(recorder, largest_block))
    return Structure(folds, streams, values, downs, tied_parameters(model), recorder.unreached(model))


def tied_parameters(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Return the names of parameters that are one and the same tensor, a tuple for each such tensor."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return tuple(tuple(group) for group in names.values() if len(group) > 1)


def _norm_fold(path: str, norm: NormKind, recorder: Recorder) -> NormFold:
    space = recorder.output_of(path)
    readers = _readers(space)
    if norm.gate is not None:
        return NormFold(path, readers, "it is gated")
    others = [writer for writer in space.writers if writer.name != path]
    if others:
        return NormFold(path, readers, f"its output is added to that of {others[0].name}")
    return NormFold(path, readers, _why_not_linear(space, recorder))


def _why_not_linear(space: Space, recorder: Recorder) -> str:
    """Return why a space is read by more than linear layers that read it alone; an empty string if it is not."""
    if space.obstacles:
        return space.obstacles[0].reason
    if space.norms:
        return f"{space.norms[0]} reads its output"
    if not space.readers:
        return "no linear layer reads its output"
    return _shared_reader(space, recorder)


def _shared_reader(space: Space, recorder: Recorder) -> str:
    for path, columns in space.readers:
        if len(recorder.inputs_of(path)) > 1 or any(c != columns for p, c in space.readers if p == path):
            return f"{path} reads other tensors too"
    return ""


def _readers(space: Space) -> tuple[Reader, ...]:
    return tuple(Reader(path, columns) for path, columns in dict.fromkeys(space.readers))


def _is_stream(space: Space) -> bool:
    return bool(space.norms) and len(space.writers) > 1 and any(w.kind != "computed" for w in space.writers)


def _stream(space: Space, norms: Mapping[str, NormKind], folds: Mapping[str, NormFold], recorder: Recorder) -> Stream:
    paths = tuple(dict.fromkeys(space.norms))
    centred = any(norms[path].operator == "layer_norm" for path in paths)
    reason = _why_not_rotated(space, paths, norms, folds, recorder)
    return Stream(space.width, tuple(space.writers), paths, _readers(space), centred, reason)


def _why_not_rotated(
    space: Space,
    paths: tuple[str, ...],
    norms: Mapping[str, NormKind],
    folds: Mapping[str, NormFold],
    recorder: Recorder,
) -> str:
    for writer in space.writers:
        if writer.kind == "norm":
            before = [w.name for w in recorder.input_of_norm(writer.name).writers if w.kind != "computed"]
            source = before[-1] if before else "the layers before it"
            return f"{writer.name} stands between {source} and the residual stream"
        if writer.kind == "computed":
            return f"{writer.name} writes to it without a linear layer in between"
    if space.obstacles:
        return space.obstacles[0].reason
    for path in paths:
        if folds[path].reason:
            return f"the gain of {path} does not fold ({folds[path].reason})"
    if len({norms[path].operator for path in paths}) > 1:
        return "both RMSNorm and LayerNorm read it"
    if space.readers and norms[paths[0]].operator == "layer_norm":
        return f"{space.readers[0][0]} reads it without a LayerNorm, so its mean cannot be subtracted"
    if shared := _shared_reader(space, recorder):
        return shared
    readers = [*_readers(space), *(reader for path in paths for reader in folds[path].readers)]
    for reader in readers:
        if reader.columns != tuple(range(space.width)) * (len(reader.columns) // space.width):
            return f"{reader.path} does not read its channels in order"
    return "" if factors_of(space.width) else f"no Hadamard matrix of order {space.width} can be built"


def _value_paths(space: Space, recorder: Recorder) -> Iterator[ValuePath]:
    """Yield the paths of the values in a space that attention mixes and linear layers read.

    A fused projection holds queries and keys as well; only the channels of the values matter.
    """
    if not space.heads:
        return
    mixed = {channel for head in space.heads for channel in head}
    readers = tuple(reader for reader in _readers(space) if set(reader.columns) <= mixed)
    if not readers:
        return
    used = {channel for reader in readers for channel in reader.columns}
    heads = tuple(sorted(head for head in space.heads if used & set(head)))
    linear = [writer for writer in space.writers if writer.kind == "linear"]
    writer = linear[0] if len(linear) == len(space.writers) == 1 else None
    reason = _why_value_stays(space, writer, heads, readers, recorder)
    yield ValuePath(writer, heads, readers, reason)


def _why_value_stays(
    space: Space,
    writer: Writer | None,
    heads: tuple[tuple[int, ...], ...],
    readers: tuple[Reader, ...],
    recorder: Recorder,
) -> str:
    if writer is None:
        return f"{space.writers[0].name} writes them" if len(space.writers) == 1 else "several modules write them"
    channels = [channel for head in heads for channel in head]
    for obstacle in space.obstacles:
        if obstacle.channels.intersection(channels):
            return obstacle.reason
    if len(set(channels)) != len(channels) or len({len(head) for head in heads}) > 1:
        return "its heads overlap"
    size = len(heads[0])
    for reader in readers:
        pieces = [reader.columns[i : i + size] for i in range(0, len(reader.columns), size)]
        if any(piece not in heads for piece in pieces):
            return f"{reader.path} does not read whole heads"
        if len(recorder.inputs_of(reader.path)) > 1:
            return f"{reader.path} reads other tensors too"
    return "" if factors_of(size) else f"no Hadamard matrix of order {size} can be built"


def _downs(recorder: Recorder, largest_block: int) -> Iterator[DownProjection]:
    blocks = [block for block in ONLINE_BLOCKS if block <= largest_block]
    for path in recorder.linears_run:
        inputs = recorder.inputs_of(path)
        output = recorder.output_of(path)
        if not (output.norms or _is_stream(output)) or not inputs:
            continue
        width = next(len(columns) for space in inputs for reader, columns in space.readers if reader == path)
        whole = width if width <= largest_block and factors_of(width) else 0
        if all(writer.kind == "computed" for space in inputs for writer in space.writers):
            block = whole or next((block for block in blocks if width % block == 0), 0)
            reason = "" if block else f"its {width} inputs cannot be cut into blocks of {', '.join(map(str, blocks))}"
            yield DownProjection(path, block, reason)


def check_norms(model: nn.Module, norms: Mapping[str, NormKind]) -> None:
    """Check that each path of `norms` is a module of the model. Errors: SpikeplugError if not."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for path in norms:
        if path not in modules:
            raise SpikeplugError(f"the model has no module {path!r}: give the norms that were found in this model.")
