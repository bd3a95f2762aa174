"""Test folding and rotating SmolLM2-135M: everything folds, and its outputs stay."""

from __future__ import annotations

import pytest
from test_preparing import norms_of

from spikeplug.measurement.loading import find_source, load
from spikeplug.weights import prepare
from spikeplug.weights.preparing import TOLERANCE


@pytest.mark.real_weights
def test_smollm2_folds_whole() -> None:
    model, _ = load(find_source(None))
    prepared = prepare(model, norms_of(model))
    assert prepared.error <= TOLERANCE
    assert prepared.kept == ()
    assert len(prepared.norms) == len(prepared.rotated) == 61
    assert prepared.online == {f"model.layers.{layer}.mlp.down_proj": 64 for layer in range(30)}
    assert prepared.untied == (("model.embed_tokens.weight", "lm_head.weight"),)
    assert len(prepared.structure.values) == 30
