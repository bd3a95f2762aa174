"""Configs by name, or from a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from spikeplug.config import SpikeConfig
from spikeplug.errors import SpikeplugError

#: By the name they are asked for.
PRESETS: Mapping[str, Callable[[], SpikeConfig]] = {
    "default": SpikeConfig,
    "narrow": SpikeConfig.narrow,
    "paper": SpikeConfig.paper,
}


def resolve_config(name: str) -> SpikeConfig:
    """`default`, `narrow`, `paper`, or the path of a JSON or TOML file."""
    if name in PRESETS:
        return PRESETS[name]()
    if not os.path.isfile(name):  # unlike Path.is_file, says no to a name that is too long
        raise SpikeplugError(
            f"no config {name!r}: give {', '.join(map(repr, PRESETS))} or the path of a JSON or TOML file."
        )
    return SpikeConfig.from_file(name)
