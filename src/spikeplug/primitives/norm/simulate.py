"""The norms by neurons: squares by gating or by a population, the restoring root, the CORDIC tree."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.neurons import Events, integrate, lif_step, population_step
from spikeplug.primitives.norm.spec import CordicSpec, RootSpec
from spikeplug.primitives.product.simulate import gate


def square_sum(x: Tensor, bits: int, events: Events) -> Tensor:
    """Σ x²: each phase-coded spike of |x| opens the synapse of |x|; all squares drive one neuron. |x| < 2^bits."""
    magnitude = x.to(torch.int64).abs()
    squares = gate(magnitude, magnitude, bits, events)
    total = torch.zeros_like(squares[..., :1])
    events.synops += squares.numel()
    events.steps += 1
    return integrate(total, squares.sum(-1, keepdim=True), events)


def square_population(x: Tensor, neurons: int, events: Events) -> Tensor:
    """x² in one step: neuron k (of N >= x) fires iff x >= k, with outgoing weight 2k - 1; Σ_(k<=x) (2k-1) = x²."""
    order = torch.arange(1, neurons + 1, device=x.device)
    resting = torch.zeros(*x.shape, neurons, dtype=torch.int64, device=x.device)
    spikes, _ = lif_step(resting, x.to(torch.int64).unsqueeze(-1), order, events)
    events.steps += 1
    return (spikes * (2 * order - 1)).sum(-1)


def root_population(square: Tensor, neurons: int, events: Events) -> Tensor:
    """floor(sqrt(S)) in one step (capped at N): neuron k fires iff S >= k²; the count is the root."""
    fired = population_step(square.to(torch.int64), [k * k for k in range(1, neurons + 1)], events)
    events.steps += 1
    return fired


def root(square: Tensor, spec: RootSpec, events: Events) -> Tensor:
    """The restoring root neuron: leak ×4, two bits of S a step, threshold 4Q + 1 with Q the root so far.

    v <- 4v + next two bits; fire iff v >= 4Q + 1, which is subtracted; Q <- 2Q + spike.
    """
    square = square.to(torch.int64)
    membrane, answer = torch.zeros_like(square), torch.zeros_like(square)
    for step in range(spec.root_bits - 1, -1, -1):
        pair = (square >> (2 * step)) & 3
        events.input((pair & 1) + (pair >> 1), fan_out=1)
        spikes, membrane = lif_step(membrane, pair, 4 * answer + 1, events, leak=2)
        integrate(answer, spikes, events, leak=1)
    events.steps += spec.root_bits
    return answer


def cordic(x: Tensor, spec: CordicSpec, events: Events) -> Tensor:
    """‖x‖ by merges: a sign neuron on y spikes, its spikes steer the shifted adds of the x and y neurons."""
    level = x.to(torch.int64)
    while level.shape[-1] > 1:
        if level.shape[-1] % 2:
            level = torch.nn.functional.pad(level, (0, 1))
        level = _merge(level[..., 0::2], level[..., 1::2], spec, events)
    return level


def _merge(x: Tensor, y: Tensor, spec: CordicSpec, events: Events) -> Tensor:
    x, y = x << spec.guard_bits, y << spec.guard_bits
    for k in range(spec.iterations):
        upper, _ = lif_step(torch.zeros_like(y), y, 0, events, fan_out=2)
        # A spike adds the shifted partner, its absence subtracts it.
        sign = 2 * upper - 1
        to_x, to_y = sign * (y >> k), -sign * (x >> k)
        integrate(x, to_x, events)
        integrate(y, to_y, events)
    events.steps += spec.iterations
    # The constant multiplication is one graded add per set bit of the constant.
    events.synops += x.numel() * spec.inverse_gain.bit_count()
    events.steps += 1
    drop = spec.guard_bits + spec.gain_bits
    total = torch.zeros_like(x)
    for place in range(spec.gain_bits + 1):
        if spec.inverse_gain >> place & 1:
            total = total + (x << place)
    return (total + (1 << (drop - 1))) >> drop
