"""The spiking operators as modules, one for one with the functions: `spikeplug.nn.GELU("tanh")` for `nn.GELU("tanh")`.

Each takes the settings of its function, by place or by name, and `numerics`; its forward takes one floating tensor.
Weights and biases are used as given, not copied. Errors: SpikeplugError, as the functions'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from spikeplug import functional
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics


class _Module(nn.Module):
    """Calls `function` on its input, with the settings it was made with."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, numerics: Numerics | None, **settings: Any) -> None:
        super().__init__()
        self.numerics, self.settings = as_numerics(numerics), settings

    def forward(self, x: Tensor) -> Tensor:
        """x's shape, see the function."""
        return type(self).function(x, **self.settings, numerics=self.numerics)

    def extra_repr(self) -> str:
        settings = "".join(f"{name}={value!r}, " for name, value in self.settings.items())
        return f"{settings}bits={self.numerics.bits}"


class _Elementwise(_Module):
    """A function with no settings."""

    def __init__(self, numerics: Numerics | None = None) -> None:
        super().__init__(numerics)


class _Along(_Module):
    """A function along one dimension."""

    def __init__(self, dim: int = -1, numerics: Numerics | None = None) -> None:
        super().__init__(numerics, dim=dim)


class _Norm(_Module):
    """A function over the last dimension, with parameters of shape (d,)."""

    def _keep(self, name: str, parameter: object, optional: bool) -> None:
        if not isinstance(parameter, nn.Parameter) and not (optional and parameter is None):
            raise SpikeplugError(
                f"{type(self).__name__} takes the {name} itself, an nn.Parameter of shape (d,), not its size."
            )
        self.register_parameter(name, parameter if isinstance(parameter, nn.Parameter) else None)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d); see the function."""
        return type(self).function(x, **self._parameters, **self.settings, numerics=self.numerics)

    def extra_repr(self) -> str:
        sizes = [str(parameter.numel()) for parameter in self._parameters.values() if parameter is not None]
        return f"{sizes[0]}, {super().extra_repr()}" if sizes else super().extra_repr()


class Softmax(_Along):
    """`functional.softmax` along `dim`."""

    function = staticmethod(functional.softmax)


class LogSoftmax(_Along):
    """`functional.log_softmax` along `dim`."""

    function = staticmethod(functional.log_softmax)


class SiLU(_Elementwise):
    """`functional.silu`."""

    function = staticmethod(functional.silu)


class Sigmoid(_Elementwise):
    """`functional.sigmoid`."""

    function = staticmethod(functional.sigmoid)


class Tanh(_Elementwise):
    """`functional.tanh`."""

    function = staticmethod(functional.tanh)


class Mish(_Elementwise):
    """`functional.mish`."""

    function = staticmethod(functional.mish)


class ReLUSquared(_Elementwise):
    """`functional.relu_squared`."""

    function = staticmethod(functional.relu_squared)


class GELU(_Module):
    """`functional.gelu`; approximate: "none", "tanh" or "quick"."""

    function = staticmethod(functional.gelu)

    def __init__(self, approximate: str = "none", numerics: Numerics | None = None) -> None:
        super().__init__(numerics, approximate=approximate)


class Softplus(_Module):
    """`functional.softplus`."""

    function = staticmethod(functional.softplus)

    def __init__(self, beta: float = 1.0, threshold: float = 20.0, numerics: Numerics | None = None) -> None:
        super().__init__(numerics, beta=beta, threshold=threshold)


class RMSNorm(_Norm):
    """`functional.rms_norm` over the last dimension. `weight` is used as given, not copied."""

    function = staticmethod(functional.rms_norm)

    def __init__(self, weight: nn.Parameter, eps: float = 1e-6, numerics: Numerics | None = None) -> None:
        super().__init__(numerics, eps=eps)
        self._keep("weight", weight, optional=False)


class LayerNorm(_Norm):
    """`functional.layer_norm` over the last dimension. `weight` and `bias` are used as given, not copied."""

    function = staticmethod(functional.layer_norm)

    def __init__(
        self,
        weight: nn.Parameter | None = None,
        bias: nn.Parameter | None = None,
        eps: float = 1e-5,
        numerics: Numerics | None = None,
    ) -> None:
        super().__init__(numerics, eps=eps)
        self._keep("weight", weight, optional=True)
        self._keep("bias", bias, optional=True)
