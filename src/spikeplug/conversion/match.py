"""Find every place where a model computes something, and what can run there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from spikeplug.conversion.auditing import NONLINEAR, is_nonlinear, may_hide_anything, stem
from spikeplug.conversion.byte_code import FOREIGN, OF_TORCH, SCRIPTED
from spikeplug.conversion.calls import ATTENTION_INTERFACE, called_names
from spikeplug.conversion.neurons import is_neuron, parts_of
from spikeplug.conversion.norms import Norm, find_norm
from spikeplug.conversion.plug import ActivationPlug, NormPlug, Plug, ScopePlug, is_foreign
from spikeplug.conversion.redirection import NAMES
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS

# Activations by class, as the operators' records name them.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, Callable[[Any], tuple[Any, ...]]]] = {
    getattr(import_module(path.rpartition(".")[0]), path.rpartition(".")[2]): (name, arguments)
    for name, record in RECORDS.items()
    for path, arguments in record.modules.items()
}
#: The operators that `convert(operators=...)` accepts: every operator that replaces something.
OPERATORS = tuple(sorted(frozenset().union(*NAMES.values(), (name for name, _ in _ACTIVATIONS.values()))))
# torch's fused forms of whole modules. torch takes them only without function modes, so a scope keeps them out.
_FAST_PATHS = frozenset({"_transformer_encoder_layer_fwd", "_nested_tensor_from_mask"})
# A module is only probed for a norm if its code could compute one.
_NORM_CALLS = frozenset({"rsqrt", "sqrt", "pow", "norm", "layer_norm", "rms_norm", "var", "std", "square", "normalize"})
# torch's functions that are made of nonlinear operations, and are no such operation by name.
_COMPOSITES = frozenset(
    name
    for line in (
        "cov corrcoef gradient nanmean renorm vander sinc std_mean var_mean local_response_norm instance_norm",
        "pdist",
        "det slogdet logdet inverse pinverse matrix_exp matrix_power lu lu_solve qr svd svd_lowrank pca_lowrank",
        "gaussian_nll_loss ctc_loss poisson_nll_loss multilabel_soft_margin_loss soft_margin_loss",
        "cosine_embedding_loss triplet_margin_loss triplet_margin_with_distance_loss linear_cross_entropy",
        "multi_margin_loss rnn_tanh rnn_relu rnn_tanh_cell rnn_relu_cell lstm gru lstm_cell gru_cell",
    )
    for name in line.split()
)
# Float nonlinearities without a replacement, by a name alone, which may be anybody's. Excluded: names that rarely mean
# one.
_NO_REPLACEMENT = (NONLINEAR | _COMPOSITES) - (NAMES.keys() | _FAST_PATHS | {"angle", "gradient"})
# Modules of other libraries, and names in them, that are nonlinear without being torch's.
_FOREIGN_MODULES = ("scipy.", "numpy.linalg")
_FOREIGN_NAMES = frozenset({"power", "cbrt", "arctan", "arctan2", "arcsin", "arccos", "sinh", "cosh", "gamma", "dist"})
# torch's fused forms that it takes only without function modes.
_NOT_IN_A_SCOPE = _FAST_PATHS | {"_native_multi_head_attention"}
# What runs where the redirection of this thread does not reach.
_THREADS = frozenset({"Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor", "Executor"})
_THREADS |= {"start_new_thread", "to_thread", "run_in_executor", "torch.fork", "torch.parallel_apply"}
# Gradients within a forward pass are those of the exact functions.
_GRADIENTS = frozenset({"grad", "grad_and_value", "vjp", "jvp", "jacrev", "jacfwd", "hessian", "jacobian", "linearize"})

# Not converted, because linear: a pipeline that makes the whole network spike converts these.
_LINEAR = "matrix product with a weight"
_ATTENTION_PRODUCTS = "matrix products query · key (without query_key_bits) and weights · value (without divide_last)"
_GATE = "elementwise product gate · up"
#: Name of the places that are neurons of another pipeline.
NEURON = "neuron"
_SPIKES = "a neuron: it spikes already"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_LINEAR_FORWARDS = frozenset(cls.forward for cls in (nn.Linear, Conv1D, nn.Bilinear, *_CONVOLUTIONS))


@dataclass(frozen=True)
class Found:
    """Describe one place where a model computes something, and what can run there.

    path       module path
    name       what is computed: an operator, or the torch function that the module's own code calls
    module     the module at that path
    operators  spiking operators that can run in its place; empty if none can
    plug       makes the object that replaces the module's forward, from numerics and the operators wanted; None where
               transformers' attention interface calls spiking attention
    reason     why nothing can replace it; empty if something does
    pipeline   True if it is linear or a neuron: left on purpose, to the pipeline that converts the rest of the network
    """

    path: str
    name: str
    module: nn.Module
    operators: frozenset[str] = frozenset()
    plug: Callable[[Numerics, frozenset[str]], Plug] | None = None
    reason: str = ""
    pipeline: bool = False


def find(model: nn.Module) -> list[Found]:
    """Return each module whose own code computes something, linear or not, in the order of `named_modules()`.

    A shared module is returned once per path.
    """
    known: dict[object, Norm | None] = {}
    places: list[Found] = []
    parts: set[int] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        if id(module) in parts:
            continue
        if is_neuron(module):
            parts.update(map(id, parts_of(module)))
            places.append(Found(path, NEURON, module, reason=_SPIKES, pipeline=True))
        else:
            places += _look_at(path, module, known)
    return [_fused(found, places) if found.name in _FAST_PATHS else found for found in places]


def _fused(fast: Found, places: list[Found]) -> Found:
    """Return the place `fast`, which is a fused fast path of torch's, with the operators of all places in its module.

    A fast path replaces the whole module and its children, so it has to go for any operator in them.

    places  all places of the model
    """
    prefix = f"{fast.path}." if fast.path else ""
    inside = (place.operators for place in places if place.path == fast.path or place.path.startswith(prefix))
    return replace(fast, operators=fast.operators.union(*inside))


def _look_at(path: str, module: nn.Module, known: dict[object, Norm | None]) -> Iterator[Found]:
    names = called_names(module)
    if is_foreign(module):  # its forward is not that of its class
        yield from _calls(path, module, names)
        return
    if type(module).forward in _LINEAR_FORWARDS:  # a subclass may compute more than its class, such as a router
        yield Found(path, "matmul", module, reason=_LINEAR, pipeline=True)
        return
    if type(module) in _ACTIVATIONS:
        operator, arguments = _ACTIVATIONS[type(module)]
        yield Found(
            path,
            operator,
            module,
            frozenset({operator}),
            lambda numerics, _: ActivationPlug(module, numerics, operator, arguments(module)),
        )
        return
    norm = find_norm(module, known) if names & _NORM_CALLS else None
    if norm is not None:
        found = norm
        yield Found(
            path,
            norm.operator,
            module,
            frozenset({norm.operator}),
            lambda numerics, _: NormPlug(module, numerics, found),
        )
        return
    if ATTENTION_INTERFACE in names and hasattr(getattr(module, "config", None), "_attn_implementation"):
        yield Found(path, "attention", module, frozenset({"attention"}))
        yield Found(path, "matmul", module, reason=_ATTENTION_PRODUCTS, pipeline=True)
    if hasattr(module, "gate_proj") and hasattr(module, "up_proj"):
        yield Found(path, "product", module, reason=_GATE, pipeline=True)
    yield from _calls(path, module, names)


def _calls(path: str, module: nn.Module, names: frozenset[str]) -> Iterator[Found]:
    """Yield a place for each function that a module's own code may call and that is nonlinear.

    Those with a spiking operator come first, then those that must stay, each with the reason.

    names  names that the code may use, as `called_names` returns them
    """
    for name in (*sorted(names & NAMES.keys()), *sorted(names & _FAST_PATHS)):
        operators = NAMES.get(name, frozenset())
        # Redirect every operator that is wanted, not only those found: the names are an under-estimate.
        yield Found(path, name, module, operators, lambda numerics, wanted: ScopePlug(module, numerics, wanted))
    for name in sorted(names):
        reason = _why_left(name, names)
        if reason:
            yield Found(path, _shown(name), module, reason=reason)


def _shown(name: str) -> str:
    """Return the name of a function without the prefix ("torch." or the like) that says where it comes from."""
    return name.removeprefix(OF_TORCH).removeprefix(FOREIGN).removeprefix(SCRIPTED)


def _why_left(name: str, names: frozenset[str]) -> str:
    """Return why nothing can replace the function `name`, or an empty string if it is replaced or not nonlinear.

    names  all names that the module's code may use
    """
    if name in _THREADS:
        return "runs in another thread"
    if name.startswith(SCRIPTED):
        return "compiled by TorchScript: use the Python function"
    if name.startswith(FOREIGN):
        return "computed outside of torch" if _is_foreign_nonlinearity(name.removeprefix(FOREIGN)) else ""
    if name in _NO_REPLACEMENT:
        return f"no spiking operator for {name}"
    if not name.startswith(OF_TORCH):
        return ""
    name = name.removeprefix(OF_TORCH)
    if name in _GRADIENTS:
        return "a gradient within the forward pass is that of the exact function"
    namespace, _, _function = name.rpartition("::")
    if namespace:
        return f"no spiking operator for {name}" if may_hide_anything(namespace) else ""
    known = name in NAMES or name in _NOT_IN_A_SCOPE or (name in _NO_REPLACEMENT and name in names)
    if name.endswith("_flatten_weight"):  # housekeeping
        return ""
    return "" if known or not is_nonlinear(stem(name)) else f"no spiking operator for {name}"


def _is_foreign_nonlinearity(name: str) -> bool:
    """Return whether a function of another library, by its full name, is nonlinear."""
    module, _, function = name.rpartition(".")
    if module.startswith(_FOREIGN_MODULES):
        return True
    return function in NAMES or function in _FOREIGN_NAMES or is_nonlinear(function) or function in _COMPOSITES
