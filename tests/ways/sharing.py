"""List the ways to run one model in several threads or processes; one process here, two in tests/distributed."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from way import Way, eager, is_converted, llama

from spikeplug.conversion import convert, revert
from spikeplug.errors import SpikeplugError


@contextmanager
def _group() -> Iterator[None]:
    """Let this process be the only one of a group over gloo."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _alone(run: Callable[[nn.Module, Tensor], Any]) -> Callable[[nn.Module, Tensor], Any]:
    def alone(model: nn.Module, x: Tensor) -> Any:
        with _group(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of CPUs and deprecations
            return run(model, x)

    return alone


def _data_parallel(model: nn.Module, x: Tensor) -> list[Tensor]:
    output = DistributedDataParallel(model)(x)
    output = getattr(output, "logits", output)
    output.square().mean().backward()
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    return [output.detach(), *gradients]


def _plain(model: nn.Module, x: Tensor) -> list[Tensor]:
    output = model(x)
    output = getattr(output, "logits", output)
    output.square().mean().backward()
    return [output.detach(), *(weight.grad.clone() for weight in model.parameters() if weight.grad is not None)]


def _sharded_before(model: nn.Module, x: Tensor) -> Tensor:
    return eager(FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu")), x)


def _sharded(model: Any, x: Tensor) -> Tensor:
    mesh = init_device_mesh("cpu", (1,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    output = eager(model, x)
    _whole(model)
    return output


def _whole(model: nn.Module) -> None:
    """Put plain weights in place of sharded ones, so that the model runs without the group."""
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    for module in model.modules():
        for name, weight in module._parameters.items():
            if isinstance(weight, DTensor):
                module._parameters[name] = nn.Parameter(weight.full_tensor().detach())


def _split(model: Any, x: Tensor) -> Tensor:
    mesh = init_device_mesh("cpu", (1,))
    plan = {
        "mlp.gate_proj": ColwiseParallel(),
        "mlp.up_proj": ColwiseParallel(),
        "mlp.down_proj": RowwiseParallel(),
    }
    for layer in model.model.layers:
        parallelize_module(layer, mesh, plan)
    return eager(model, x)


def _converting(model: nn.Module, x: Tensor) -> Tensor:
    """Let four threads convert one model: one wins, and the others are refused."""
    if not is_converted(model):
        return eager(model, x)
    revert(model)
    start, refused = threading.Barrier(4), []

    def work() -> None:
        start.wait()
        try:
            convert(model)
        except SpikeplugError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    return eager(model, x)


WAYS = (
    Way("several threads convert it", _converting, llama, note="one wins, the others are refused"),
    Way("`DistributedDataParallel`", _alone(_data_parallel), reference=_plain),
    Way("`DistributedDataParallel`, transformers", _alone(_data_parallel), llama, _plain),
    Way("`nn.DataParallel`", lambda model, x: eager(nn.DataParallel(model), x)),
    Way("FSDP1", _alone(_sharded_before), llama),
    Way("FSDP2, `fully_shard`", _alone(_sharded), llama),
    Way("tensor parallel, `parallelize_module`", _alone(_split), llama),
)
