"""Drive accumulators by spike trains, most significant bit first, through synapses that are constants, gates or signs.

v <- 2v + Σ_j w_j · bit_j(t)        after all bits:  v = Σ_j w_j · x_j
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes.counting import ones
from spikeplug.neurons import Scope, blocks, integrate, lif_step, reached


def add(a: Tensor, b: Tensor | int, bits: int, scope: Scope) -> Tensor:
    """Return a + b for integers |a|, |b| < 2^bits whose shapes broadcast. Two spike trains drive one neuron.

    A constant b is a bias: it sends no spike.
    """
    dtype = torch.result_type(a, b)
    if isinstance(b, int):
        return _driven([(a, None)], bits, bits + 2, dtype, scope, bias=b)
    return _driven([(a, None), (b, None)], bits, bits + 2, dtype, scope)


def scale(x: Tensor, factor: int | Tensor, bits: int, scope: Scope) -> Tensor:
    """Return x · factor, int64, for integers |x| < 2^bits. The factor is the weight of the synapse that x drives.

    factor: one constant, or a tensor of constants that broadcasts to x.
    """
    largest = abs(factor) if isinstance(factor, int) else int(factor.abs().max()) if factor.numel() else 0
    return _driven([(x, factor)], bits, bits + largest.bit_length() + 1, torch.int64, scope)


def select(condition: Tensor, a: Tensor | int, b: Tensor | int, bits: int, scope: Scope) -> Tensor:
    """Return a where the bool tensor `condition` is true, else b, for integers |a|, |b| < 2^bits.

    The spike trains of a and b drive one neuron. The condition decides which of the two synapses is open.
    If a or b is one integer, it sends no spikes: it is a bias of the neuron, added where the condition selects it.
    """
    gate = condition.to(torch.int64)
    (scope / "gate").population("input", 1, condition.numel()).send(gate, 2)
    terms: list[tuple[Tensor, Tensor | int | None]] = []
    bias: Tensor | int = 0
    for value, open_gate in ((a, gate), (b, 1 - gate)):
        if isinstance(value, int):
            bias = bias + value * open_gate
        else:
            terms.append((value, open_gate))
    dtype = torch.result_type(a, b)
    if not terms:
        return torch.as_tensor(bias).to(dtype)
    return _driven(terms, bits, bits + 1, dtype, scope, bias=bias)


def magnitude(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return |x| for integers |x| < 2^bits.

    One population sends positive values, another the negative ones; both excite the same neuron per element.
    """
    return _driven([(x.abs(), None)], bits, bits + 1, x.dtype, scope)


def signed(magnitude: Tensor, sign_of: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return `magnitude`, negated where `sign_of` < 0, for 0 <= magnitude < 2^bits.

    A spike for each negative sign makes the synapse of the magnitude inhibitory.
    """
    negative = (sign_of < 0).to(torch.int32)
    (scope / "sign").population("input", 1, sign_of.numel()).send(negative)
    return _driven([(magnitude, 1 - 2 * negative)], bits, bits + 1, magnitude.dtype, scope)


def shift(x: Tensor, places: Tensor, bits: int, left: int, scope: Scope) -> Tensor:
    """Return floor(x · 2^places) in x's dtype, for 0 <= x < 2^bits and places <= left; places may be negative.

    Each element has one neuron, which receives the bits of x, highest first, and doubles its sum at each step.
    It listens for bits + places steps: fewer steps than bits leave out the low bits, more steps double the sum.
    """
    steps = bits + left
    x, places = torch.broadcast_tensors(x, places)
    _send(x, 1, scope / "operand")
    answer = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    scope.population("accumulator", min(steps + 1, torch.iinfo(x.dtype).bits), x.numel()).steps += steps
    for train, listens, target in blocks(scope, x, (places + bits).clamp(max=steps).to(x.dtype), answer):
        membrane, bit, active, current = (torch.zeros_like(target) for _ in range(4))
        for time in range(steps):
            torch.gt(listens, time, out=active)
            if time < bits:
                torch.bitwise_right_shift(train, bits - 1 - time, out=bit).bitwise_and_(1)
                torch.bitwise_and(bit, active, out=current)
            arrived = int(bit.sum(dtype=torch.int32)) if time < bits else 0
            integrate(membrane, current if arrived else 0, scope, leak=1, leaking=active, driven=arrived)
        target.copy_(membrane)
    return answer


def round_half(x: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return floor(x/2 + 1/2) for integers |x| < 2^bits: the neuron that holds x adds 1, then halves once."""
    scope.population("accumulator", bits + 2, x.numel()).steps += 2
    membrane = integrate(x.clone(), 1, scope)
    return integrate(membrane, 0, scope, leak=-1)


def clamp(x: Tensor, low: int | None, high: int | None, bits: int, scope: Scope) -> Tensor:
    """Return x limited to [low, high], for integers |x| <= 2^bits; None: no limit on that side.

    Each limit has one threshold neuron per element. If it fires, the limit replaces the element.
    """
    for limit, name, sign in ((low, "low", -1), (high, "high", 1)):
        if limit is None:
            continue
        part = scope / name
        part.population("threshold", bits + 2, x.numel()).steps += 1
        membrane = sign * x.to(torch.int64)
        beyond, _ = lif_step(membrane, 0, sign * limit, part, driven=reached(membrane, membrane))
        x = x + (limit - x) * beyond.to(x.dtype)
    return x


def _send(x: Tensor, fan_out: int, scope: Scope) -> None:
    """Count the spikes of |x|, each delivered to `fan_out` synapses."""
    scope.population("input", 1, x.numel()).sent(ones(x), fan_out)


def _driven(
    terms: list[tuple[Tensor, Tensor | int | None]],
    bits: int,
    width: int,
    dtype: torch.dtype,
    scope: Scope,
    *,
    bias: Tensor | int = 0,
) -> Tensor:
    """Return Σ x·synapse + bias of |x| < 2^bits, broadcast; a synapse of None is 1.

    width  bits of the sum and its sign; it also chooses the dtype of the membrane

    The bias is added in the last step.
    """
    tensors = [t for t in (*(t for term in terms for t in term), bias) if isinstance(t, Tensor)]
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    for number, (x, _) in enumerate(terms):
        name = "operand" if len(terms) == 1 else f"operand {number + 1}"
        _send(x, shape.numel() // max(1, x.numel()), scope / name)
    answer = torch.empty(shape, dtype=dtype, device=tensors[0].device)
    scope.population("accumulator", width, answer.numel()).steps += bits
    # If the result fits int32, so does the membrane: before the last step, it holds the result's leading bits.
    state = torch.int32 if width <= 32 or dtype == torch.int32 else torch.int64
    for target, *parts in blocks(scope, answer, *(t.expand(shape) for t in tensors)):
        given = iter(parts)
        trains = [_train(next(given), next(given) if isinstance(s, Tensor) else s, state) for _, s in terms]
        last = next(given).to(state) if isinstance(bias, Tensor) else bias
        membrane, bit, current, other, more = (torch.zeros_like(target, dtype=state) for _ in range(5))
        for place in range(bits - 1, -1, -1):
            arriving, charge = _sent(*trains[0], place, bit, current)
            for train in trains[1:]:
                spikes, added = _sent(*train, place, other, more)
                arriving, charge = arriving | spikes, charge + added
            if place == 0:
                charge = charge + last
            integrate(membrane, charge, scope, leak=1, driven=int(arriving.sum(dtype=torch.int32)))
        target.copy_(membrane)
    return answer


def _train(x: Tensor, synapse: Tensor | int | None, state: torch.dtype) -> tuple[Tensor, Tensor | int | None]:
    """Return |x| and the weight of its spikes: the synapse, negated where x < 0; None is 1."""
    x = x.to(state)
    if synapse is not None:
        sign = x.sign()
        return x.abs(), sign.mul_(synapse if isinstance(synapse, int) else synapse.to(state))
    return x.abs(), x.sign() if bool((x < 0).any()) else None


def _sent(
    size: Tensor, weight: Tensor | int | None, place: int, spikes: Tensor, current: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the spikes (the bit of `size` at `place`), and weight · spikes, written into the tensors of that name."""
    torch.bitwise_right_shift(size, place, out=spikes).bitwise_and_(1)
    return spikes, spikes if weight is None else torch.mul(spikes, weight, out=current)
