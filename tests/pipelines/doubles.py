"""Small modules with the tensors of published conversion pipelines, written from their equations.

Time lies where each pipeline puts it: in calls that follow one another, in a leading dimension, folded into the batch,
in planes of one value, or nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class STBIF(nn.Module):
    """Step a bipolar integrate-and-fire neuron with a spike tracer; it settles at theta·clamp(floor(x/theta + 1/2)).

    One call per time step, in any shape. The membrane starts at 1/2, the tracer at 0.
    """

    def __init__(self, threshold: float, lowest: int, highest: int) -> None:
        super().__init__()
        self.register_buffer("q_threshold", torch.tensor(threshold))
        self.lowest, self.highest = lowest, highest
        self.reset()

    def reset(self) -> None:
        self.q: Tensor | float = 0.5
        self.fired: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        q = self.q + x / self.q_threshold
        fired = torch.as_tensor(self.fired)
        up = (q >= 1) & (fired < self.highest)
        down = (q < 0) & (fired > self.lowest)
        spikes = up.to(x) - down.to(x)
        self.q, self.fired = q - spikes, fired + spikes
        return spikes * self.q_threshold


class Difference(nn.Module):
    """Return f(x_1 + ... + x_t) - f(x_1 + ... + x_(t-1)), one call per time step."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.reset()

    def reset(self) -> None:
        self.total: Tensor | float = 0.0
        self.before: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.total = self.total + x
        now = self.function(self.total)
        result, self.before = now - self.before, now
        return result


def softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)


class SpikeZIPAttention(nn.Module):
    """Attend with ST-BIF spikes, a step per call: [B, S, H] in, [B, S, H] out; scores are differences [B, h, S, S]."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.spikes = nn.ModuleList(STBIF(0.125, -31, 31) for _ in range(3))
        self.softmax = Difference(softmax)
        self.probabilities, self.context = STBIF(2**-5, 0, 31), STBIF(0.0625, -31, 31)
        self.norm = Difference(nn.LayerNorm(width, elementwise_affine=False))
        self.reset()

    def reset(self) -> None:
        self.sums: list[Tensor | float] = [0.0] * 4

    def _delta(self, a: Tensor, b: Tensor, which: int) -> Tensor:
        """Return the step of the product of two sums: A·b + a·B - a·b."""
        self.sums[which], self.sums[which + 1] = self.sums[which] + a, self.sums[which + 1] + b
        return self.sums[which] @ b + a @ self.sums[which + 1] - a @ b

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            spikes(part).view(batch, length, self.heads, -1).transpose(1, 2)
            for spikes, part in zip(self.spikes, self.qkv(x).chunk(3, -1), strict=True)
        )
        scores = self._delta(q, k.transpose(-1, -2), 0) / math.sqrt(width // self.heads)
        context = self._delta(self.probabilities(self.softmax(scores)), v, 2)
        return self.norm(x + self.context(context.transpose(1, 2).reshape(x.shape)))


class TokenCode(nn.Module):
    """Round each token to T·(L-1) steps of its own range, as generalised IF neurons do: [B, S, H] to [B, S, H]."""

    def __init__(self, levels: int = 16, steps: int = 2) -> None:
        super().__init__()
        self.largest = steps * (levels - 1)

    def forward(self, x: Tensor) -> Tensor:
        low = x.amin(-1, keepdim=True)
        scale = (x.amax(-1, keepdim=True) - low).clamp(min=1e-5) / self.largest
        return torch.round((x - low) / scale) * scale + low


class RMSNorm(nn.Module):
    """Normalise [..., H] by its root mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(width)), 1e-6

    def forward(self, hidden_states: Tensor) -> Tensor:
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        return self.weight * hidden_states * torch.rsqrt(variance + self.variance_epsilon)


class SpikeLLMBlock(nn.Module):
    """Run a gated MLP on dequantised activations [B, S, H]; no tensor has a dimension of time."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm, self.code_in, self.code_out = RMSNorm(width), TokenCode(), TokenCode()
        self.gate, self.up, self.down = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.code_in(self.norm(x))
        return x + self.down(self.code_out(F.silu(self.gate(y)) * self.up(y)))


class IF(nn.Module):
    """Fire with weight theta, reset by subtraction, from a membrane of theta/2: [T·B, S, H] to [T·B, S, H]."""

    def __init__(self, steps: int, threshold: float = 2.0) -> None:
        super().__init__()
        self.steps, self.thresh = steps, nn.Parameter(torch.tensor(threshold))
        self.mem = torch.tensor(0.0)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.view(self.steps, -1, *x.shape[1:])
        self.mem = 0.5 * self.thresh.expand(steps.shape[1:])
        spikes = []
        for step in steps:
            self.mem = self.mem + step
            spikes.append((self.mem >= self.thresh).to(x) * self.thresh)
            self.mem = self.mem - spikes[-1]
        return torch.stack(spikes).view_as(x)


class FASBlock(nn.Module):
    """Run a block on instantaneous values, T folded into the batch: [T·B, S, H] from the embedding to the logits."""

    def __init__(self, steps: int, width: int = 8) -> None:
        super().__init__()
        self.norm, self.attention = (
            nn.LayerNorm(width, elementwise_affine=False),
            nn.MultiheadAttention(width, 2, batch_first=True),
        )
        self.up, self.act, self.down = nn.Linear(width, width), IF(steps), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.down(self.act(self.up(self.norm(x))))


class FewSpikes(nn.Module):
    """Code a value in few spikes, planes of falling height: [...] to [16, ...], whose sum is the value."""

    def __init__(self, largest: float = 8.0, planes: int = 16) -> None:
        super().__init__()
        self.register_buffer("theta", largest * 2.0 ** -torch.arange(1, planes + 1))
        self.v = torch.tensor(0.0)

    def forward(self, x: Tensor) -> Tensor:
        self.v, planes = x.abs(), []
        for height in self.theta:
            planes.append((self.v > height).to(x) * height)
            self.v = self.v - planes[-1]
        return torch.stack(planes) * x.sign()


class LASBlock(nn.Module):
    """Run linear layers on planes [16, B, S, H], nonlinearities on their sum [B, S, H], and code the result again."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.codes = nn.ModuleList(FewSpikes() for _ in range(2))
        self.norm, self.up, self.down = (
            nn.LayerNorm(width, elementwise_affine=False),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        planes = self.codes[0](self.norm(x))
        hidden = F.gelu(F.linear(planes, self.up.weight).sum(0) + self.up.bias)
        return x + F.linear(self.codes[1](hidden), self.down.weight).sum(0) + self.down.bias


class Phase(nn.Module):
    """Code a value in T phases of thresholds tau·base^-(t+1), and return the sum of its spikes: [B, S, H]."""

    def __init__(self, steps: int = 10, tau: float = 8.0, base: float = 2.0) -> None:
        super().__init__()
        self.register_buffer("v_threshold", tau * base ** -torch.arange(1.0, steps + 1))
        self.v = torch.tensor(0.0)

    def forward(self, x: Tensor) -> Tensor:
        self.v, total = x.abs(), torch.zeros_like(x)
        for threshold in self.v_threshold:
            spikes = (self.v >= threshold).to(x) * threshold
            self.v, total = self.v - spikes, total + spikes
        return total * x.sign()


class PhaseBlock(nn.Module):
    """Run a norm and a gated MLP on values that phase neurons have decoded: [B, S, H]."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm, self.code_in, self.code_out = RMSNorm(width), Phase(), Phase()
        self.gate, self.up, self.down = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.code_in(self.norm(x))
        return x + self.down(self.code_out(F.silu(self.gate(y)) * self.up(y)))


class ExpectationCompensation(nn.Module):
    """Return t·f(mean of t steps) - (t-1)·f(mean of t-1 steps), one call per step: the mean of outputs is f(mean)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.reset()

    def reset(self) -> None:
        self.steps, self.total = 0, torch.tensor(0.0)
        self.before: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.steps, self.total = self.steps + 1, self.total + x
        now = self.steps * self.function(self.total / self.steps)
        result, self.before = now - self.before, now
        return result


class TemporalDifference(nn.Module):
    """Compute f of the accumulated steps and return its differences over dimension 0: [T, ...] to [T, ...]."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.step_mode, self.evaluated = function, "m", 0
        self.memory: Tensor | None = None

    def memories(self) -> list[Tensor | None]:
        return [self.memory]

    def reset(self) -> None:
        self.memory = None

    def forward(self, x: Tensor) -> Tensor:
        total = x.cumsum(dim=0)
        self.memory, self.evaluated = total[-1], len(total)
        y = self.function(total)
        return torch.diff(y, dim=0, prepend=torch.zeros_like(y[:1]))


class FoldedDifference(TemporalDifference):
    """Do the same for a function of [B, ...], with time folded into the batch."""

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        total = x.cumsum(dim=0)
        self.memory, self.evaluated = total[-1], len(total)
        y = self.function(total.flatten(0, 1))
        y = y.reshape(steps, batch, *y.shape[1:])
        return torch.diff(y, dim=0, prepend=torch.zeros_like(y[:1]))


class SignedIF(nn.Module):
    """Encode the sum of a sequence in T signed spikes per channel; whoever uses it calls `encode`, not forward."""

    def __init__(self, scale: Tensor, steps: int) -> None:
        super().__init__()
        self.register_buffer("v_threshold", scale)
        self.steps, self.v = steps, torch.tensor(0.0)

    def encode(self, x: Tensor) -> Tensor:
        self.v = torch.round(x / self.v_threshold).clamp(-self.steps, self.steps)
        time = torch.arange(self.steps).view(-1, *[1] * x.dim())
        return (time < self.v.abs()) * self.v.sign() * self.v_threshold

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x.sum(0))


def reset(model: nn.Module) -> None:
    """Bring every module of a model that has a state back to its start."""
    for module in model.modules():
        if hasattr(module, "reset"):
            module.reset()
