"""Say which module of a whole spiking model does what: a saved model is built from it before weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from spikeplug.conversion.whole.recipe import Whole
from spikeplug.conversion.whole.rotary import REPEATS
from spikeplug.errors import SpikeplugError, shown
from spikeplug.hadamard import factors_of
from spikeplug.operators.linear.levels import MOST_ROTATION

_NORMS = ("rms_norm", "layer_norm")
_MOST_PATHS, _LONGEST_PATH = 1 << 20, 1000


@dataclass(frozen=True)
class Layout:
    """Describe a whole spiking model by the paths of its modules; config.json holds it as plain values.

    recipe     levels of each site
    coded      layers, embeddings and convolutions with int8 weights
    blocks     those of them whose inputs are not rotated: they have a step per recipe.block channels
    rotations  those whose input is rotated first, with the order of the Hadamard matrix
    norms      norms without gain and bias, with the operator that they compute
    rotary     rotary embeddings, with how their factors repeat
    biases     coded layers that got a bias they did not have
    """

    recipe: Whole
    coded: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    rotations: Mapping[str, int] = field(default_factory=dict)
    norms: Mapping[str, str] = field(default_factory=dict)
    rotary: Mapping[str, str] = field(default_factory=dict)
    biases: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        lists = {name: list(getattr(self, name)) for name in ("coded", "blocks", "biases")}
        return {**asdict(self), **lists}

    @classmethod
    def from_dict(cls, values: object) -> Layout:
        """Return the layout that `to_dict` wrote. Errors: SpikeplugError for anything else."""
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not {"recipe", "coded"} <= set(values) <= known:
            raise SpikeplugError(
                "the layout in config.json is not one that save_pretrained wrote: save the model again."
            )
        recipe = values["recipe"]
        if not isinstance(recipe, dict):
            raise SpikeplugError(f"recipe is {shown(recipe)} in config.json: save the model again.")
        checked: dict[str, Any] = {
            **{name: _paths(name, values.get(name, [])) for name in ("coded", "blocks", "biases")},
            "rotations": _orders(values.get("rotations", {})),
            "norms": _choices("norms", values.get("norms", {}), _NORMS),
            "rotary": _choices("rotary", values.get("rotary", {}), tuple(REPEATS)),
        }
        return cls(Whole(**recipe), **checked)

    def under(self, prefix: str) -> Layout:
        """Return the layout of the part whose paths begin with `prefix`, in the part's own paths."""

        def own(paths: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(path.removeprefix(prefix) for path in paths if path.startswith(prefix))

        def own_of(values: Mapping[str, Any]) -> dict[str, Any]:
            return {path.removeprefix(prefix): value for path, value in values.items() if path.startswith(prefix)}

        return Layout(
            self.recipe,
            own(self.coded),
            own(self.blocks),
            own_of(self.rotations),
            own_of(self.norms),
            own_of(self.rotary),
            own(self.biases),
        )


def _is_path(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_PATH


def _paths(name: str, values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or len(values) > _MOST_PATHS or not all(map(_is_path, values)):
        raise SpikeplugError(f"{name} in config.json is no list of module paths: save the model again.")
    return tuple(values)


def _orders(values: object) -> dict[str, int]:
    """Return orders of Hadamard matrices by path."""
    fits = isinstance(values, dict) and len(values) <= _MOST_PATHS and all(map(_is_path, values))
    orders = list(values.values()) if fits else [None]  # type: ignore[attr-defined]
    if not all(type(order) is int and 1 < order <= MOST_ROTATION and factors_of(order) for order in orders):
        raise SpikeplugError("rotations in config.json holds something unknown: save the model again.")
    return dict(values)  # type: ignore[call-overload,no-any-return]


def _choices(name: str, values: object, allowed: tuple[Any, ...]) -> dict[str, Any]:
    fits = isinstance(values, dict) and len(values) <= _MOST_PATHS and all(map(_is_path, values))
    if not fits or any(type(v) is not type(allowed[0]) or v not in allowed for v in values.values()):  # type: ignore[attr-defined]
        raise SpikeplugError(f"{name} in config.json holds something unknown: save the model again.")
    return dict(values)  # type: ignore[call-overload,no-any-return]
