"""Test that copies of a converted model (copied, pickled or saved whole) are converted models of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import DUPLICATES, logits, tiny_model, tokens

from spikeplug.conversion import audit, convert, revert
from spikeplug.presets import PRESETS


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_copies_live_on_their_own(duplicate: Any) -> None:
    model = tiny_model("qwen3")
    exact = logits(model, tokens())
    convert(model, exclude=r"layers\.1\.self_attn$")
    spiking = logits(model, tokens())
    twin = duplicate(model)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(logits(twin, tokens()), spiking)
    with audit(twin) as found:
        twin(tokens())
    assert {entry.path for entry in found.entries} <= {"model.layers.1.self_attn"}
    revert(twin)
    assert torch.equal(logits(twin, tokens()), exact)
    assert model.config._attn_implementation == "spiking"
    revert(model)


@pytest.mark.slow
def test_a_whole_model_saved_by_torch_runs_in_a_new_process(tmp_path: Path) -> None:
    model = tiny_model(num_hidden_layers=1)
    convert(model, PRESETS["paper"].numerics)
    torch.save(model, tmp_path / "model.pt")
    torch.save((tokens(), logits(model, tokens())), tmp_path / "expected.pt")
    program = """
import sys, torch
torch.set_num_threads(1)
ids, expected = torch.load(sys.argv[1] + "/expected.pt")
model = torch.load(sys.argv[1] + "/model.pt", weights_only=False)
with torch.inference_mode():
    print(torch.equal(model(ids).logits, expected))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr
