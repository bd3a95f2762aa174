"""The spiking operators as modules, one for one with the functions: `spikeplug.nn.GELU("tanh")` for `nn.GELU("tanh")`.

Each class takes the settings of its function, by place or by name, and `numerics`; its forward takes one floating
tensor. Weights and biases are used as given, not copied. Errors: SpikeplugError, as the functions'.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from torch import Tensor, nn

from spikeplug import functional
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS
from spikeplug.presets import as_numerics


class SpikingModule(nn.Module):
    """Call an operator on the input, with the settings the module was made with."""

    #: The function of `spikeplug.functional`.
    operator: ClassVar[str]

    def __init__(self, *settings: Any, numerics: Numerics | str | None = None, **named: Any) -> None:
        super().__init__()
        try:
            given = self._settings().bind(*settings, **named)
        except TypeError as error:
            raise SpikeplugError(f"{type(self).__name__}{self._settings()}: {error}.") from error
        given.apply_defaults()
        self.numerics, self.settings = as_numerics(numerics), dict(given.arguments)

    @classmethod
    def _settings(cls) -> inspect.Signature:
        parameters = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
            for name, default in RECORDS[cls.operator].defaults.items()
        ]
        return inspect.Signature(parameters)

    def forward(self, x: Tensor) -> Tensor:
        """Return the operator's result; shapes as the function's."""
        result: Tensor = getattr(functional, self.operator)(x, **self.settings, numerics=self.numerics)
        return result

    def extra_repr(self) -> str:
        settings = "".join(f"{name}={value!r}, " for name, value in self.settings.items())
        return f"{settings}bits={self.numerics.bits}"


class _Norm(SpikingModule):
    """A function over the last dimension, with parameters of shape (d,)."""

    def _keep(self, name: str, parameter: object, optional: bool) -> None:
        if not isinstance(parameter, nn.Parameter) and not (optional and parameter is None):
            raise SpikeplugError(
                f"{type(self).__name__} takes the {name} itself, an nn.Parameter of shape (d,), not its size."
            )
        self.register_parameter(name, parameter if isinstance(parameter, nn.Parameter) else None)

    @classmethod
    def _settings(cls) -> inspect.Signature:
        return inspect.Signature([inspect.Parameter("eps", inspect.Parameter.POSITIONAL_OR_KEYWORD)])

    def forward(self, x: Tensor) -> Tensor:
        """Return the norm of (..., d); see the function."""
        result: Tensor = getattr(functional, self.operator)(
            x, **self._parameters, **self.settings, numerics=self.numerics
        )
        return result

    def extra_repr(self) -> str:
        sizes = [str(parameter.numel()) for parameter in self._parameters.values() if parameter is not None]
        return f"{sizes[0]}, {super().extra_repr()}" if sizes else super().extra_repr()


class RMSNorm(_Norm):
    """`functional.rms_norm` over the last dimension. `weight` is used as given, not copied."""

    operator = "rms_norm"

    def __init__(self, weight: nn.Parameter, eps: float = 1e-6, numerics: Numerics | str | None = None) -> None:
        super().__init__(eps, numerics=numerics)
        self._keep("weight", weight, optional=False)


class LayerNorm(_Norm):
    """`functional.layer_norm` over the last dimension. `weight` and `bias` are used as given, not copied."""

    operator = "layer_norm"

    def __init__(
        self,
        weight: nn.Parameter | None = None,
        bias: nn.Parameter | None = None,
        eps: float = 1e-5,
        numerics: Numerics | str | None = None,
    ) -> None:
        super().__init__(eps, numerics=numerics)
        self._keep("weight", weight, optional=True)
        self._keep("bias", bias, optional=True)


def _module(name: str, operator: str) -> type[SpikingModule]:
    document = f"`functional.{operator}`: {RECORDS[operator].formula}."
    return type(name, (SpikingModule,), {"operator": operator, "__doc__": document, "__module__": __name__})


for _record in RECORDS.values():
    if _record.module:
        globals()[_record.module] = _module(_record.module, _record.name)


def __getattr__(name: str) -> type[SpikingModule]:
    # Tells type checkers that there are more classes than are written out here.
    raise AttributeError(f"module 'spikeplug.nn' has no attribute {name!r}")
