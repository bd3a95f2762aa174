"""Test what a SpikingConfig accepts from any source: known values only, and no pattern that takes long to search."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers.quantizers.auto import AutoQuantizationConfig

from spikeplug.conversion import SpikingConfig, patterns
from spikeplug.conversion.patterns import LONGEST, check_pattern, matching
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"bits": 4}, "unknown field 'bits'"),
    ({"self": 1}, "unknown field 'self'"),
    ({"numerics": {"bits": 64}}, "bits is 64; it must lie between"),
    ({"numerics": {"bits": 10**30}}, "must lie between"),
    ({"numerics": {"bits": "16"}}, "must be of type int"),
    ({"numerics": {"half_range": float("nan")}}, "half_range is nan"),
    ({"numerics": {"norm": "__import__('os')"}}, "choose one of"),
    ({"numerics": {"segments": -1}}, "segments is -1"),
    ({"numerics": {"file": "/etc/passwd"}}, "'file' is not a field of Numerics"),
    ({"numerics": "/etc/passwd"}, "unknown preset '/etc/passwd'"),
    ({"numerics": ["default"]}, "numerics is a list"),
    ({"numerics": None}, "numerics is null"),
    ({"numerics": {1: 2}}, "numerics is a dict"),
    ({"operators": "softmax"}, "give a tuple of names"),
    ({"operators": []}, "give a tuple of names"),
    ({"operators": ["os.system"]}, "unknown operator 'os.system'"),
    ({"operators": [["softmax"]]}, "unknown operator"),
    ({"exclude": 5}, "exclude is of type int"),
    ({"exclude": "("}, "is not a regular expression"),
    ({"exclude": "(" * 3000 + ")" * 3000}, "is not a regular expression|groups nested more than"),
    ({"exclude": "a" * (LONGEST + 1)}, "shorten it"),
    ({"exclude": "a{99999999999999999999}"}, "is not a regular expression"),
    ({"exclude": "(a+)+$"}, "a repeated group"),
    ({"exclude": "(a|a)*$"}, "a repeated group"),
    ({"exclude": r"(.*)\1"}, "a reference to a group"),
    ({"exclude": "(?=a)b"}, r"a group beginning with \(\?"),
    ({"exclude": "(a|a)" * 40 + "b"}, "too long to search"),
    ({"exclude": "a?" * 40 + "a" * 40}, "too long to search"),
    ({"exclude": ".*.*.*.*x"}, "too long to search"),
    ({"exclude": "a{2,9}{2,9}"}, "is not a regular expression"),
    ({"model_class": "os.system"}, "model_class is not the name"),
    ({"model_class": 7}, "model_class is not the name"),
    ({"quant_method": "gptq"}, "quant_method is 'gptq'"),
]


@pytest.mark.parametrize(("fields", "sentence"), REFUSED)
def test_what_a_config_may_not_say(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpikeplugError, match=sentence) as refusal:
        SpikingConfig(**fields)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    "pattern",
    [
        r"layers\.0\.", r"^model\.layers\.(0|1|29)\.", r"\.(norm|ln_f)$", r"layers\.\d+\.mlp", "lm_head", r"h\.[0-5]\.",
        r"[]^a-z\]]+x", r"a{2,3}b", r"(?:encoder|decoder)\.(?:0|1)", "", "a{x}", r"\(\)\[", r"[^]]",
    ],
)  # fmt: skip
def test_ordinary_patterns_pass(pattern: str) -> None:
    check_pattern(pattern)
    assert SpikingConfig(exclude=pattern).exclude == pattern


@pytest.mark.parametrize("pattern", [r"a?" * 3 + "b", ".*.*.*x", "(a|a)" * 18 + "b", "(.|..|a)" * 8 + "$"])
def test_what_passes_is_searched_in_no_time(pattern: str) -> None:
    check_pattern(pattern)
    begin = time.process_time()
    re.search(pattern, "a" * 64)
    assert time.process_time() - begin < 2


def test_the_time_for_all_paths_of_a_model_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MOST_SECONDS", 0.3)
    pattern = "(.|.)" * 18 + "[^ -~]"  # fails at every place, at its last character
    check_pattern(pattern)
    begin = time.process_time()
    with pytest.raises(SpikeplugError, match="takes too long to search in all module paths"):
        matching(pattern, (f"model.layers.{i}.self_attn.q_proj.lora_A.default" for i in range(10_000)))
    assert time.process_time() - begin < 20
    model = nn.Sequential(*[nn.SiLU() for _ in range(3)])
    assert matching("1", (path for path, _ in model.named_modules())) == {"1"}


DEEP: dict[str, Any] = {}
for _ in range(50_000):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    "fields",
    [
        {"numerics": {"bits": DEEP}},
        {"numerics": {"norm": DEEP}},
        {"operators": DEEP},
        {"operators": [DEEP]},
        {"exclude": DEEP},
        {"quant_method": DEEP},
        {"model_class": DEEP},
        {"operators": ["x" * 10**6]},
        {"numerics": {"x" * 10**6: 1}},
        {"x" * 10**6: 1},
    ],
    ids=range(10),
)
def test_deep_and_long_values_are_one_short_sentence(fields: dict[str, Any]) -> None:
    with pytest.raises(SpikeplugError) as refusal:
        SpikingConfig(**fields)
    assert len(str(refusal.value)) < 600
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("token", ["[]", "[1]", "3", "null", "[" * 100_000])
def test_other_tokens_of_numerics(token: str) -> None:
    with pytest.raises(SpikeplugError, match="is not a token of numerics"):
        Numerics.from_token(token)


def test_a_config_is_plain_data(tmp_path: Path) -> None:
    config = SpikingConfig("paper", ("softmax", "silu"), r"layers\.0\.mlp")
    config.to_json_file(tmp_path / "config.json")
    again = AutoQuantizationConfig.from_dict(json.loads((tmp_path / "config.json").read_text()))
    assert again == config
    assert hash(again) == hash(config)
    assert dict(config) == config.to_dict()
    assert again != SpikingConfig()
    assert again.numerics == PRESETS["paper"].numerics
    assert SpikingConfig(Numerics(bits=12)).to_dict()["numerics"]["bits"] == 12
    assert SpikingConfig({"bits": 12}).numerics == Numerics(bits=12)
    assert "SpikingConfig" in repr(config)
