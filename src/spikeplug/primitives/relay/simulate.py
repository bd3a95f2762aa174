"""Drive accumulators by spike trains, most significant bit first, through synapses that are constants, gates or signs.

v <- 2v + Σ_j w_j · bit_j(t)        after all bits:  v = Σ_j w_j · x_j
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes.spikes import popcount
from spikeplug.neurons import Scope, blocks, integrate, lif_step


def add(a: Tensor, b: Tensor | int, bits: int, scope: Scope) -> Tensor:
    """Return a + b of |a|, |b| < 2^bits. Two spike trains drive one neuron.

    A constant b is a bias: it sends no spike.
    """
    if isinstance(b, int):
        return _driven([(a, None)], bits, scope, bias=b)
    return _driven([(a, None), (b, None)], bits, scope)


def scale(x: Tensor, factor: int, bits: int, scope: Scope) -> Tensor:
    """Return x · factor of |x| < 2^bits; int64. The factor is the weight of the synapse."""
    wide = x.to(torch.int64)
    return _driven([(wide, torch.tensor(factor, dtype=torch.int64, device=x.device))], bits, scope)


def select(condition: Tensor, a: Tensor | int, b: Tensor | int, bits: int, scope: Scope) -> Tensor:
    """Return a where `condition` is true, else b, of |a|, |b| < 2^bits.

    Two spike trains drive one neuron. The condition's spike opens the synapse of one of them.
    A constant is a bias behind the same gate.
    """
    gate = condition.to(torch.int64)
    (scope / "gate").population("input", 1, condition.numel()).send(gate, 2)
    terms: list[tuple[Tensor, Tensor | None]] = []
    bias: Tensor | int = 0
    for value, open_gate in ((a, gate), (b, 1 - gate)):
        if isinstance(value, int):
            bias = bias + value * open_gate
        else:
            terms.append((value, open_gate))
    dtype = torch.where(condition, a, b).dtype
    if not terms:
        return torch.as_tensor(bias).to(dtype)
    return _driven(terms, bits, scope, bias=bias).to(dtype)


def magnitude(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return |x| of |x| < 2^bits. The populations of both signs excite one neuron; one of them is silent."""
    return _driven([(x.abs(), None)], bits, scope)


def signed(magnitude: Tensor, sign_of: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return ±magnitude, below 2^bits. The sign's spike selects an inhibitory synapse."""
    negative = sign_of < 0
    (scope / "sign").population("input", 1, sign_of.numel()).send(negative.to(torch.int32))
    return _driven([(magnitude, 1 - 2 * negative.to(magnitude.dtype))], bits, scope)


def shift(x: Tensor, places: Tensor, bits: int, left: int, scope: Scope) -> Tensor:
    """Return floor(x · 2^places) of 0 <= x < 2^bits and places <= left; x's dtype.

    An accumulator takes part in bits + places steps.
    Fewer steps than bits drop the low bits. More steps double the membrane.
    The state is as wide as the result.
    """
    steps = bits + left
    x, places = torch.broadcast_tensors(x, places)
    answer = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    population = scope.population("accumulator", bits + left + 1, x.numel())
    population.steps += steps
    (scope / "operand").population("input", 1, x.numel()).send(popcount(x))
    for train, listens, target in blocks(scope, x, (places + bits).clamp(max=steps), answer):
        membrane, current = torch.zeros_like(train), torch.empty_like(train)
        listens = listens.to(train.dtype)
        active = torch.empty_like(train)
        for time in range(steps):
            # 1 for a neuron that still takes part, whose leak is then 2, else 0. Integers are faster here than bool.
            torch.gt(listens, time, out=active)
            membrane <<= active
            if time < bits:
                torch.bitwise_right_shift(train, bits - 1 - time, out=current).bitwise_and_(active)
                membrane += current
            population.membrane_updates += membrane.numel()
            if scope.watched:
                scope.observe(population, membrane)
        target.copy_(membrane.view(target.shape))
    return answer


def round_half(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return floor(x/2 + 1/2) of |x| < 2^bits. The neuron that holds x gets a bias of 1, then leaks once by 1/2."""
    scope.population("accumulator", bits + 1, x.numel()).steps += 2
    membrane = integrate(x.clone(), 1, scope)
    return integrate(membrane, 0, scope, leak=-1)


def clamp(x: Tensor, low: int | None, high: int | None, bits: int, scope: Scope) -> Tensor:
    """Return x clamped to [low, high]. There is one threshold neuron per limit; its spike replaces x by the limit."""
    for limit, name, sign in ((low, "low", -1), (high, "high", 1)):
        if limit is None:
            continue
        part = scope / name
        part.population("threshold", bits + 1, x.numel()).steps += 1
        beyond, _ = lif_step(sign * x.to(torch.int64), 0, sign * limit, part)
        x = x + (limit - x) * beyond.to(x.dtype)
    return x


def _driven(terms: list[tuple[Tensor, Tensor | None]], bits: int, scope: Scope, *, bias: Tensor | int = 0) -> Tensor:
    """Return Σ x·synapse + bias of |x| < 2^bits. A synapse of None is 1. The bias is added in the last step."""
    shape = torch.broadcast_shapes(*(t.shape for pair in terms for t in pair if t is not None))
    dtype = terms[0][0].dtype
    for x, synapse in terms:
        dtype = torch.promote_types(dtype, x.dtype if synapse is None else torch.promote_types(x.dtype, synapse.dtype))
    size = shape.numel()
    for number, (x, _) in enumerate(terms):
        name = "operand" if len(terms) == 1 else f"operand {number + 1}"
        population = (scope / name).population("input", 1, x.numel())
        population.send(popcount(x), size // max(1, x.numel()))
    answer = torch.empty(shape, dtype=dtype, device=terms[0][0].device)
    scope.population("accumulator", bits + 2, size).steps += bits
    tensors = []
    for x, synapse in terms:
        sign = torch.sign(x) if synapse is None else torch.sign(x) * synapse
        tensors += [x.abs().to(dtype).expand(shape), sign.to(dtype).expand(shape)]
    offset = bias.to(dtype).expand(shape) if isinstance(bias, Tensor) else None
    if offset is not None:
        tensors.append(offset)
    for target, *parts in blocks(scope, answer, *tensors):
        membrane, bit, current = (torch.zeros_like(parts[0]) for _ in range(3))
        for place in range(bits - 1, -1, -1):
            current.zero_()
            for index in range(0, 2 * len(terms), 2):
                torch.bitwise_right_shift(parts[index], place, out=bit).bitwise_and_(1)
                current.addcmul_(bit, parts[index + 1])
            if place == 0:
                current += parts[-1] if offset is not None else bias
            integrate(membrane, current, scope, leak=1)
        target.copy_(membrane)
    return answer
