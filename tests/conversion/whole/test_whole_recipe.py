"""Requests for a whole conversion: what is a recipe, what calibrates, and one sentence for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from tiny_models import VOCABULARY, logits, tiny_model, tokens, unchanged
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import spikeplug
from spikeplug.conversion import SpikingConfig, convert, revert
from spikeplug.conversion.recipes.request import as_recipe
from spikeplug.conversion.whole.calibration import TOKENS, calibration_of, text_tokens
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.errors import SpikeplugError


@pytest.mark.parametrize("wrong", ["wholesale", 3, None, b"whole", Whole])
def test_other_recipes_are_refused(wrong: Any) -> None:
    with pytest.raises(SpikeplugError, match="recipe is"):
        as_recipe(wrong, None, None)


@pytest.mark.parametrize(
    "fields",
    [
        *({name: value} for name in ("inputs", "weights", "cache") for value in (0, -1, 1 << 16)),
        {"weights": 128},
        {"block": -1},
        {"inputs": True},
        {"inputs": 1.5},
        {"rotate": 1},
        {"rotate": "yes"},
    ],
    ids=str,
)
def test_fields_have_a_domain(fields: dict[str, Any]) -> None:
    with pytest.raises(SpikeplugError, match=next(iter(fields))):
        Whole(**fields)


def test_recipes_by_bits() -> None:
    assert Whole.of_bits(9) == Whole()
    assert [Whole.of_bits(bits).inputs for bits in (4, 5, 6, 7, 8, 9)] == [7, 15, 31, 63, 127, 256]
    for wrong in (3, 10, 4.5, "8"):
        with pytest.raises(SpikeplugError, match="choose 4 to 9"):
            Whole.of_bits(wrong)  # type: ignore[arg-type]


def test_arguments_of_the_other_recipe_are_refused() -> None:
    model = tiny_model()
    check = unchanged(model)
    for arguments in (
        {"recipe": "whole", "operators": ("silu",)},
        {"calibration": tokens()},
        {"keep": False},
    ):
        with pytest.raises(SpikeplugError, match="goes with recipe"):
            convert(model, **arguments)
    check()


NAN = torch.full((1, 3, 32), torch.nan)
WRONG = {
    "text": ("some text", "is a str"),
    "list of ids": ([1, 2, 3], "is a list"),
    "true": (True, "is a bool"),
    "float ids": (torch.ones(2, 3), "float32"),
    "short ids": (torch.ones(2, 3, dtype=torch.int32), "int32"),
    "three dimensions": (torch.ones(1, 2, 3, dtype=torch.int64), "3 dimensions"),
    "no ids": (torch.ones(1, 0, dtype=torch.int64), "holds no input_ids"),
    "nothing": ({}, "is a dict"),
    "too large ids": (torch.full((1, 4), VOCABULARY), "knows 97"),
    "negative ids": (torch.full((1, 4), -1), "token -1"),
    "NaN": ({"inputs_embeds": NAN}, "holds NaN"),
    "unknown name": ({"pixels": torch.ones(1, 3)}, "does not run on calibration"),
    "ids and embeddings": ({"input_ids": tokens(), "inputs_embeds": torch.ones(2, 12, 32)}, "exactly one"),
    "wrong width": ({"inputs_embeds": torch.ones(1, 3, 31)}, "does not run on calibration"),
    "not a tensor": ({"input_ids": "text"}, "does not run on calibration"),
}


@pytest.mark.parametrize(("calibration", "sentence"), WRONG.values(), ids=WRONG)
def test_bad_calibration_is_refused_in_one_sentence(calibration: Any, sentence: str) -> None:
    model = tiny_model(num_hidden_layers=1)
    check = unchanged(model)
    with pytest.raises(SpikeplugError, match=sentence):
        convert(model, recipe="whole", calibration=calibration)
    check()


def test_the_batch_is_the_inputs_by_name() -> None:
    model = tiny_model(num_hidden_layers=1)
    row = calibration_of(model, tokens()[0])
    assert row.batch is not None
    assert torch.equal(row.batch["input_ids"], tokens()[:1])
    given = {"input_ids": tokens(), "attention_mask": torch.ones(2, 12)}
    found = calibration_of(model, given)
    assert found.batch is not None
    assert found.batch.keys() == given.keys()
    assert all(found.batch[name] is value for name, value in given.items())
    assert row.note == found.note == ""


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [(False, "calibration is off."), (None, "tokenizer is not at hand; give calibration=tokenizer(text, return_tens")],
)
def test_the_report_says_that_weights_are_rounded_to_nearest(calibration: Any, reason: str) -> None:
    model = tiny_model(num_hidden_layers=1)
    notes = convert(model, recipe="whole", calibration=calibration).notes
    assert notes[0].startswith("All weights are rounded to nearest, which is less accurate")
    assert reason in notes[0]
    revert(model)
    assert not convert(model, recipe="whole", calibration=tokens()).notes


def test_a_loading_model_logs_its_notes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_model(num_hidden_layers=1).save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=SpikingConfig(recipe="whole"))
    assert [record.levelname for record in caplog.records if "rounded to nearest" in record.message] == ["WARNING"]


def test_the_report_says_what_excluded_modules_prevent() -> None:
    notes = convert(tiny_model(), recipe="whole", calibration=tokens(), exclude="lm_head").notes
    assert "Weights are neither folded nor rotated: excluded modules keep theirs." in notes


def test_the_report_names_layers_whose_inputs_are_not_rotated() -> None:
    model = tiny_model(intermediate_size=46)  # no Hadamard matrix is of that order
    notes = convert(model, recipe="whole", calibration=tokens()).notes
    first = "model.layers.0.mlp.down_proj"
    assert f"The inputs of 2 layers, the first {first}, are not rotated: they have a step per 32 channels." in notes


class Grouped(nn.Module):
    """Convolutions in groups, and channels that are 0 on all inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.layer = nn.Conv1d(8, 8, 3, groups=4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(x).transpose(1, 2)
        return F.silu(self.layer(mixed * (torch.arange(8) < 6)))


def test_the_report_says_which_weights_calibration_did_not_serve() -> None:
    x = torch.randn(2, 8, 9, generator=torch.Generator().manual_seed(0))
    notes = convert(Grouped(), recipe=Whole(rotate=False), calibration={"x": x}).notes
    assert notes == (
        "Convolutions in groups are rounded to nearest, 1 of them, the first mix.",
        "Channels that were 0 in all of calibration have weights rounded to nearest: 2 in layer, the first of 1 "
        "layers. Give more tokens.",
    )


def test_a_model_that_says_nothing_of_its_inputs_is_run_on_its_calibration() -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(20, 16), nn.Linear(16, 4)

        def forward(self, input_ids: Tensor) -> Tensor:
            return F.silu(self.layer(self.table(input_ids)))

    unknown = "The model was not run, as it does not say what it takes"
    assert any(unknown in note for note in convert(Embedded(), recipe="whole", calibration=False).notes)
    ids = torch.arange(20)[None]
    assert not any(unknown in note for note in convert(Embedded(), recipe="whole", calibration=ids).notes)


def test_masks_may_hide_by_infinities() -> None:
    mask = torch.zeros(1, 1, 12, 12).masked_fill(~torch.ones(12, 12, dtype=torch.bool).tril(), -torch.inf)
    model = tiny_model(num_hidden_layers=1)
    convert(model, recipe="whole", calibration={"input_ids": tokens()[:1], "attention_mask": mask})
    assert bool(torch.isfinite(logits(model, tokens())).all())
    revert(model)


def test_the_embedded_text_gives_its_last_tokens() -> None:
    def tokenizer(text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text) // 4))}

    ids = text_tokens(tokenizer)
    assert ids.shape == (1, TOKENS)
    assert ids[0].diff().eq(1).all()


def test_more_calibration_is_better_than_none_and_repeats() -> None:
    """On the tokens that it was calibrated on; the same weights every time."""
    model, errors = tiny_model(tie_word_embeddings=False), []
    exact = logits(model, tokens(8, 16))
    for calibration in (False, tokens(8, 16)):
        states = []
        for _ in range(2):
            convert(model, recipe=spikeplug.Whole(weights=7), calibration=calibration)
            states.append({name: value.clone() for name, value in model.state_dict().items()})
            found = logits(model, tokens(8, 16))
            revert(model)
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
        errors.append(float((found - exact).norm()))
    assert errors[1] < errors[0]


def test_progress_goes_from_the_first_layer_to_the_last() -> None:
    model, told = tiny_model(), []
    convert(model, recipe="whole", calibration=tokens(), progress=lambda *report: told.append(report))
    layers = len(told)
    assert told == [("rounding weights", done, layers) for done in range(1, layers + 1)]
    assert layers == sum(parameter.dtype == torch.int8 for parameter in model.parameters())
