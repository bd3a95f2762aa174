"""List the ways to copy, save and load a converted model."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from way import Way, block, eager, is_converted, llama

from spikeplug.conversion import convert


def _of_copy(duplicate: Callable[[Any], Any]) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return the output of a copy, after the original's weights were zeroed, where it shares none."""

    def run(model: nn.Module, x: Tensor) -> Tensor:
        twin = duplicate(model)
        shared = {id(weight) for weight in twin.parameters()} & {id(weight) for weight in model.parameters()}
        if shared:
            return eager(twin, x)
        before = copy.deepcopy(model.state_dict())
        with torch.no_grad():
            for weight in model.parameters():
                weight.zero_()
        output = eager(twin, x)
        model.load_state_dict(before)
        return output

    return run


def _torch_saved(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _state(model: nn.Module, *, assign: bool = False) -> nn.Module:
    """Return a new model with the state of this one; both converted, or both not."""
    twin = type(model)(model.config) if hasattr(model, "config") else block()[0]  # type: ignore[call-arg]
    if is_converted(model):
        convert(twin)
    assert list(twin.state_dict()) == list(model.state_dict())
    twin.load_state_dict(model.state_dict(), assign=assign)
    return twin


def _saved_pretrained(model: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return type(model).from_pretrained(folder).eval()


def _in_new_process(model: nn.Module, x: Tensor) -> Tensor:
    program = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
model, x = torch.load(sys.argv[2] + "/model.pt", weights_only=False)
with torch.no_grad():
    torch.save(model(x).logits, sys.argv[2] + "/output.pt")
"""
    with tempfile.TemporaryDirectory() as folder:
        torch.save((model, x), Path(folder) / "model.pt")
        here = str(Path(__file__).parent)
        subprocess.run([sys.executable, "-c", program, here, folder], check=True, capture_output=True)
        return torch.load(Path(folder) / "output.pt")  # type: ignore[no-any-return]


def _replicated(model: nn.Module, x: Tensor) -> Tensor:
    """Return the output of a replica made as `nn.DataParallel` makes it, with the weights of the original."""

    def replica_of(module: nn.Module) -> nn.Module:
        replica = module._replicate_for_data_parallel()
        for name, weight in module._parameters.items():
            setattr(replica, name, None if weight is None else weight.detach().clone())
        for name, child in module._modules.items():
            setattr(replica, name, replica_of(child))  # type: ignore[arg-type]
        return replica

    return eager(replica_of(model), x)


def _new_head(model: Any, x: Tensor) -> Tensor:
    """Return the output of a shallow copy with a last layer of its own."""
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    twin.second = copy.deepcopy(model.second)
    with torch.no_grad():
        twin.second.weight.mul_(2)
    return eager(twin, x)


def _with_new_head(model: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        model.second.weight.mul_(2)
        output = eager(model, x)
        model.second.weight.div_(2)
    return output


WAYS = (
    Way("`copy.copy`", _of_copy(copy.copy)),
    Way("`copy.copy`, transformers", _of_copy(copy.copy), llama),
    Way("`copy.copy` and a new layer", _new_head, reference=_with_new_head),
    Way("`copy.deepcopy`", _of_copy(copy.deepcopy)),
    Way("`copy.deepcopy`, transformers", _of_copy(copy.deepcopy), llama),
    Way("`pickle`", _of_copy(lambda model: pickle.loads(pickle.dumps(model)))),
    Way("`pickle`, transformers", _of_copy(lambda model: pickle.loads(pickle.dumps(model))), llama),
    Way("`torch.save` of the model", _of_copy(_torch_saved)),
    Way("`torch.save` of the model, loaded in a new process", _in_new_process, llama),
    Way("`load_state_dict`", _of_copy(_state)),
    Way("`load_state_dict(assign=True)`", lambda model, x: eager(_state(model, assign=True), x)),
    Way("`save_pretrained`, `from_pretrained`", _of_copy(_saved_pretrained), llama),
    Way("`AveragedModel`", _of_copy(lambda model: AveragedModel(model).module)),
    Way("a replica of `nn.DataParallel`", _replicated),
)
