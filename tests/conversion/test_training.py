"""Test fine-tuning a converted model: gradients go straight through the integers, close to those of the exact model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import VOCABULARY, tiny_model, tokens
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, Trainer, TrainingArguments

from spikeplug.conversion import SpikingConfig, convert, revert
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS

STEPS = 30


def tiny_bert(dropout: float = 0.0) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    dropouts = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertForMaskedLM(
        BertConfig(vocab_size=VOCABULARY, max_position_embeddings=64, initializer_range=0.3, **sizes, **dropouts)
    )


MODELS = {"llama": tiny_model, "bert": tiny_bert}


def loss_and_gradients(model: PreTrainedModel, ids: Tensor, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("numerics", [Numerics(), PRESETS["paper"].numerics], ids=["default", "paper"])
def test_fine_tuning_learns_and_what_is_learnt_stays(name: str, numerics: Numerics) -> None:
    model, ids = MODELS[name]().train(), tokens(4, 10)
    convert(model, numerics)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    revert(model)
    with torch.no_grad():
        assert float(model(input_ids=ids, labels=ids).loss) < 0.7 * losses[0]


@pytest.mark.parametrize("name", MODELS)
def test_every_gradient_is_close_to_the_exact_models(name: str) -> None:
    """Each is an exact vector-Jacobian product, at activations that differ by what the operators round."""
    model, ids = MODELS[name]().train(), tokens(4, 10)
    _, exact = loss_and_gradients(model, ids)
    convert(model)
    _, spiking = loss_and_gradients(model, ids)
    assert spiking.keys() == exact.keys()
    for parameter, gradient in exact.items():
        # The gradient of a key's bias is 0 but for rounding: a softmax does not see what all its scores share.
        scale = max(float(gradient.norm()), 1e-3 * max(float(g.norm()) for g in exact.values()))
        assert float((spiking[parameter] - gradient).norm()) < 0.02 * scale, parameter


@pytest.mark.parametrize("name", MODELS)
def test_gradient_checkpointing_changes_no_bit(name: str) -> None:
    model, ids = MODELS[name]().train(), tokens(2, 8)
    convert(model)
    expected = loss_and_gradients(model, ids)
    for reentrant in (False, True):
        model.activation_checkpointing_enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()
        loss, gradients = loss_and_gradients(model, ids)
        assert torch.equal(loss, expected[0])
        assert all(torch.equal(gradients[name], gradient) for name, gradient in expected[1].items())


def test_dropout_in_training_mode_only() -> None:
    model, ids = tiny_bert(dropout=0.1), tokens(4, 10)
    convert(model)
    model.eval()
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    first, second = loss_and_gradients(model, ids, seed=1), loss_and_gradients(model, ids, seed=1)
    assert torch.equal(first[0], second[0])
    assert all(bool(gradient.isfinite().all()) for gradient in first[1].values())


def test_attention_dropout_keeps_the_mean() -> None:
    """The weights that remain are scaled up, so that the mean does not change."""
    model, ids = tiny_model(attention_dropout=0.3, num_hidden_layers=1), tokens(1, 6)
    convert(model)
    caught: list[Tensor] = []
    model.model.layers[0].self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        model.eval()(ids)
        expected = caught.pop()
        model.train()
        torch.manual_seed(0)
        for _ in range(200):
            model(ids)
    mean = torch.stack(caught).mean(0)
    # Standard error of a mean of 200: a few hundredths of the largest value.
    assert float((mean - expected).abs().max()) < 0.2 * float(expected.abs().max())
    assert not torch.equal(caught[0], expected)


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_the_trainer_takes_a_model_loaded_spiking(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "exact")
    model = type(tiny_model()).from_pretrained(tmp_path / "exact", quantization_config=SpikingConfig())
    rows = [{"input_ids": row, "labels": row} for row in tokens(8, 10)]
    arguments = TrainingArguments(
        tmp_path / "run", num_train_epochs=4, learning_rate=3e-3, report_to=[], save_strategy="no", use_cpu=True,
        disable_tqdm=True, per_device_train_batch_size=4, logging_steps=1,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


def test_half_precision_training_under_autocast() -> None:
    model, ids = tiny_model().train(), tokens(2, 8)
    _, exact = loss_and_gradients(model, ids)
    convert(model)
    with torch.autocast("cpu", torch.bfloat16):
        _, spiking = loss_and_gradients(model, ids)
    for parameter, gradient in exact.items():
        assert spiking[parameter].dtype == torch.float32
        assert float((spiking[parameter] - gradient).norm()) < 0.2 * float(gradient.norm()), parameter
