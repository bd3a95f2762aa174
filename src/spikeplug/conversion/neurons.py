"""Recognise neurons: modules that hold a membrane potential and compare it with a firing threshold.

A pipeline that turns a network into a spiking one brings its own: IF, LIF, ST-BIF, signed QCFS and others. They are
known by what they hold and what their code reads, whatever library they come from. Their divisions have constant
divisors, and they spike already, so a conversion leaves them alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from torch import nn

from spikeplug.conversion.calls import names_read

_THRESHOLD = re.compile(r"(\w+_)?(threshold|thresh|v_th|vth|theta)s?")
#: Names of the membrane potential as a module's own attribute, or as a part of a state that is passed along.
_OWN_POTENTIAL = frozenset({"v", "u", "q", "mem", "membrane", "membrane_potential", "potential"})
_PASSED_POTENTIAL = frozenset({"v", "mem", "membrane", "membrane_potential"})
#: What a layer computes and a neuron does not. A module that does both is a layer, whose nonlinearity is replaced.
_OF_LAYERS = frozenset(
    ["softmax", "log_softmax", "scaled_dot_product_attention", "layer_norm", "rms_norm", "group_norm", "gelu", "silu"]
)


def is_neuron(module: nn.Module) -> bool:
    """Return whether a module is a spiking neuron, or an encoder made of some: one with a potential and a threshold."""
    own, passed = names_read(module)
    if not _reads_threshold(own | passed) or not _OF_LAYERS.isdisjoint(passed):
        return False
    held = (name for name in _OWN_POTENTIAL - module._modules.keys() if hasattr(module, name))
    return any(held) or not _PASSED_POTENTIAL.isdisjoint(passed)


@lru_cache(maxsize=4096)
def _reads_threshold(names: frozenset[str]) -> bool:
    return any(map(_THRESHOLD.fullmatch, names))


def neurons_in(model: nn.Module) -> set[int]:
    """Return the ids of all modules that are neurons or parts of one."""
    return {id(part) for module in model.modules() if is_neuron(module) for part in (module, *parts_of(module))}


def parts_of(neuron: nn.Module) -> Iterator[nn.Module]:
    """Yield the parts of a neuron: what is below it without weights, such as surrogates, and neurons that it holds."""
    for child in neuron.children():
        if is_neuron(child) or not any(True for _ in child.parameters()):
            yield child
            yield from parts_of(child)
