"""Keep rounded layers on disk while a model is made whole, a file each, so that an interrupted conversion goes on."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from spikeplug.conversion.whole.layout import Layout
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import NUMERICS_VERSION, Numerics

#: File that says which conversion the layers are of.
_OF = "conversion.txt"


class RoundedLayer(NamedTuple):
    """Hold the integers of a layer as `CodedPlug.install` takes them, and how many channels calibration left at 0."""

    mantissa: Tensor
    threshold: Tensor
    unit: Tensor
    bias: Tensor | None
    dead: Tensor


@dataclass(frozen=True)
class Unfinished:
    """A folder of rounded layers. Make one by `open_unfinished`."""

    folder: Path

    def get(self, path: str) -> RoundedLayer | None:
        """Return the layer at `path`, as `put` got it, or None if it is not there."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = self._file(path)
        if not file.is_file():
            return None
        try:
            found = load_file(file)
        except (OSError, SafetensorError) as error:
            raise self._refused(f"holds a file that cannot be read, {file.name} ({error})") from error
        return RoundedLayer(bias=found.pop("bias", None), **found)

    def put(self, path: str, layer: RoundedLayer) -> None:
        """Keep a layer. Its file is there whole or not at all."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        held = {name: x.contiguous() for name, x in layer._asdict().items() if x is not None}
        file = self._file(path)
        try:
            save_file(held, file.with_suffix(".part"))
            os.replace(file.with_suffix(".part"), file)
        except (OSError, SafetensorError) as error:
            raise self._refused(f"cannot be written ({error})") from error

    def _file(self, path: str) -> Path:
        return self.folder / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.safetensors"

    def _refused(self, reason: str) -> SpikeplugError:
        return SpikeplugError(f"the folder of unfinished layers {self.folder} {reason}: remove it, or name another.")


def open_unfinished(
    folder: str | os.PathLike[str], model: nn.Module, numerics: Numerics, layout: Layout, batch: Mapping[str, Any]
) -> Unfinished:
    """Return the folder in which a conversion keeps its rounded layers; it is made if it does not exist.

    model, numerics, layout, batch   what the layers follow from: another conversion's are not taken

    Errors: SpikeplugError if it holds another conversion's layers or anything else, or cannot be written.
    """
    store, wanted = Unfinished(Path(folder).expanduser()), _digest(model, numerics, layout, batch)
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        of = store.folder / _OF
        if of.is_file():
            if of.read_text().strip() != wanted:
                raise store._refused("is of another model, recipe or calibration")
        elif any(store.folder.iterdir()):
            raise store._refused("holds something else")
        else:
            of.write_text(wanted)
    except (OSError, UnicodeDecodeError) as error:
        raise store._refused(f"cannot be used ({error})") from error
    return store


def forget(folder: Path) -> None:
    """Remove a folder of rounded layers; nothing else of that name is touched."""
    if (folder / _OF).is_file():
        shutil.rmtree(folder, ignore_errors=True)


def _digest(model: nn.Module, numerics: Numerics, layout: Layout, batch: Mapping[str, Any]) -> str:
    """Return a digest of all that rounded layers follow from."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((NUMERICS_VERSION, numerics.token, layout)).encode())
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers()), **batch}
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            held = value.detach().cpu().contiguous()
            digest.update(repr((held.dtype, tuple(held.shape))).encode())
            digest.update(held.flatten().view(torch.uint8).numpy().data if held.numel() else b"")
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
