"""No output bit changes unnoticed: if one must, raise NUMERICS_VERSION, tell the CHANGELOG, run make.py beside this."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path


def test_every_bit_is_as_recorded() -> None:
    spec = importlib.util.spec_from_file_location("make_golden", Path(__file__).with_name("make.py"))
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert make.vectors() == json.loads(make.FILE.read_text(encoding="utf-8"))
