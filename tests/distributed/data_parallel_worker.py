"""In each of two processes: converted models under FSDP2 and DDP, beside plain ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from exact_models import states
from tiny_models import tiny_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.distributed import DistributedConfig
from two_processes import save

import spikeplug

FAMILY = "qwen3"


def sharded(model: PreTrainedModel, *, norm_alone: bool = False) -> PreTrainedModel:
    """FSDP2 around each layer and around the rest; norm_alone: the last norm is a unit too."""
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    if norm_alone:
        fully_shard(model.model.norm, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def shard_after(norm_alone: bool) -> nn.Module:
    model = tiny_model(FAMILY)
    spikeplug.convert(model)
    return sharded(model, norm_alone=norm_alone)


def shard_before(norm_alone: bool) -> nn.Module:
    model = sharded(tiny_model(FAMILY), norm_alone=norm_alone)
    spikeplug.convert(model)
    return model


def shard_by_transformers(folder: str) -> nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, distributed_config=DistributedConfig(fsdp_size=2))
    spikeplug.convert(model)
    return model


def wrap_after() -> nn.Module:
    model = tiny_model(FAMILY)
    spikeplug.convert(model)
    return DistributedDataParallel(model)


def wrap_before() -> nn.Module:
    model = DistributedDataParallel(tiny_model(FAMILY))
    spikeplug.convert(model.module)
    return model


def wrap_and_convert_the_wrapper() -> nn.Module:
    model = DistributedDataParallel(tiny_model(FAMILY))
    spikeplug.convert(model)
    return model


def outcome(make: Callable[[], nn.Module]) -> dict[str, Any]:
    """The states of the converted model, of the reverted one and of the one converted again; or the error."""
    found: dict[str, Any] = {}
    try:
        model = make()
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        given = inner if hasattr(inner, "spikeplug_conversion") else model  # what convert was given
        found.update(names=list(inner.state_dict()), converted=states(model))
        spikeplug.revert(given)
        found["reverted"] = states(model)
        spikeplug.convert(given)
        found["again"] = states(model)
    except Exception as error:  # the other cases are to be seen too
        found["error"] = f"{type(error).__name__}: {error}"
    return found


def main(folder: str) -> None:
    dist.init_process_group("gloo")
    place = Path(folder) / "model"
    if dist.get_rank() == 0:
        tiny_model(FAMILY).save_pretrained(place)
    dist.barrier()
    cases: dict[str, Callable[[], nn.Module]] = {
        "plain": lambda: (model := tiny_model(FAMILY), spikeplug.convert(model))[0],
        "convert, fully_shard": lambda: shard_after(False),
        "convert, fully_shard, norm alone": lambda: shard_after(True),
        "fully_shard, convert": lambda: shard_before(False),
        "fully_shard, convert, norm alone": lambda: shard_before(True),
        "from_pretrained, convert": lambda: shard_by_transformers(str(place)),
        "convert, DDP": wrap_after,
        "DDP, convert": wrap_before,
        "DDP, convert the wrapper": wrap_and_convert_the_wrapper,
    }
    save({name: outcome(make) for name, make in cases.items()}, folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
