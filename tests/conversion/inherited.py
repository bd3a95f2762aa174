"""Hold a base class and a function in another file, for test_calls.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def shared(x: Tensor) -> Tensor:
    return torch.tanh(x)


def rooted(x: Tensor) -> Tensor:
    return x.sqrt()


class Base(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.act(rooted(x)) + x.exp()

    def act(self, x: Tensor) -> Tensor:
        return x.cos()
