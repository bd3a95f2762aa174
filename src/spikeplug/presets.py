"""List the presets: numerics and realisation under one name, the same in Python and on the command line."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from spikeplug.errors import SpikeplugError, shown
from spikeplug.numerics import Numerics
from spikeplug.realisation import Realisation


class Preset(NamedTuple):
    """Hold the numerics, which fix the output bits, and the realisation, which says which neurons compute them."""

    numerics: Numerics
    realisation: Realisation


#: default  ours: accurate at any length.
#: narrow   8-bit codes (T·L = 256, and a sign) at every operator's input and output, one scale per 32 channels.
#: paper    the published recipe: K = 64, 8 CORDIC iterations, 8 bits, one ordered division per probability, H = 5.
#:          H is per operator: softmax has 10. With 5, everything more than 5 below the maximum is dropped before the
#:          sum, and the recipe collapses less than its authors measured (docs/log.md); softmax_half_range=5 gives that.
PRESETS: Mapping[str, Preset] = {
    "default": Preset(Numerics(), Realisation()),
    "narrow": Preset(Numerics(bits=8, input_bits=8, query_key_bits=None, scale_block=32), Realisation()),
    "paper": Preset(
        Numerics(
            bits=8,
            query_key_bits=None,
            divide_last=False,
            shift_scaling=False,
            exponential="piecewise",
            segments=64,
            half_range=5.0,
            norm="cordic",
            iterations=8,
        ),
        Realisation(code="count", steps=32, division="ordered"),
    ),
}


def preset(name: object) -> Preset:
    """Return the preset of that name. Errors: SpikeplugError for anything that is not the name of a preset."""
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name]
    raise SpikeplugError(
        f"unknown preset {shown(name)}: choose one of {', '.join(map(repr, PRESETS))}, or give your own numerics "
        "(Numerics(...) in Python, a .json or .toml file of its fields on the command line)."
    )


def as_numerics(numerics: Numerics | str | None) -> Numerics:
    """Return the given numerics, those of the preset if its name is given, or the default for None.

    Errors: SpikeplugError for unknown names and other types.
    """
    if numerics is None:
        return _DEFAULT
    if isinstance(numerics, Numerics):
        return numerics
    if isinstance(numerics, str):
        return preset(numerics).numerics
    raise SpikeplugError(
        f"numerics is a {type(numerics).__name__}: give Numerics(...) or a preset, {', '.join(map(repr, PRESETS))}."
    )


def as_realisation(realisation: Realisation | str | None, numerics: Numerics) -> Realisation:
    """Return the realisation, or that of a preset for its name. None: the one of the preset with these numerics.

    Numerics of no preset have that of the default. Errors: SpikeplugError for anything else.
    """
    if realisation is None:
        known = (preset.realisation for preset in PRESETS.values() if preset.numerics == numerics)
        return next(known, PRESETS["default"].realisation)
    if isinstance(realisation, Realisation):
        return realisation
    if isinstance(realisation, str):
        return preset(realisation).realisation
    raise SpikeplugError(
        f"realisation is a {type(realisation).__name__}: give Realisation(...) or a preset, "
        f"{', '.join(map(repr, PRESETS))}."
    )


def read_preset(name: str) -> Preset:
    """Return the preset of that name, or of a JSON (`.json`) or TOML (`.toml`) file.

    A file holds the fields of Numerics, and those of Realisation in a table `realisation`.
    Errors: SpikeplugError for unknown names, and for missing, malformed or unknown fields.
    """
    if name in PRESETS or not os.path.isfile(name):  # unlike Path.is_file, False for a name that is too long
        return preset(name)
    path = Path(name)
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_LONGEST + 1)
        if len(text) > _LONGEST:
            raise ValueError(f"it has more than {_LONGEST} characters")
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SpikeplugError(f"cannot read the preset file {path}: {error}.") from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError and TOMLDecodeError are ValueErrors
        raise SpikeplugError(f"the preset file {path} is neither valid JSON nor (if .toml) TOML: {error}.") from error
    if not isinstance(values, dict) or not isinstance(values.get("realisation", {}), dict):
        raise SpikeplugError(
            f"the preset file {path} must hold one table of the fields of Numerics, with an optional table realisation."
        )
    own = values.pop("realisation", None)
    numerics = Numerics.from_dict(values)
    return Preset(numerics, as_realisation(None, numerics) if own is None else Realisation.from_dict(own))


#: Most characters of a preset file: tomllib takes minutes for a key of many dots.
_LONGEST = 1 << 14
_DEFAULT = PRESETS["default"].numerics
