"""A model made whole lives like any other: saved, copied, generated from, reverted; and it comes back if it fails."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from counting import same_events
from test_whole_recipe import unchanged
from tiny_models import DUPLICATES, logits, relative_error, tiny_model, tokens
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from spikeplug.conversion import SpikingConfig, audit, convert, count, revert, simulate
from spikeplug.conversion.whole import coded, rounding
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.errors import SpikeplugError
from spikeplug.realisation import Realisation
from spikeplug.weights import Weights


def whole(family: str = "llama", **request: Any) -> tuple[PreTrainedModel, Tensor]:
    """Return a whole model, and its float logits."""
    settings = request.pop("settings", {})
    model = tiny_model(family, **settings)
    exact = logits(model, tokens())
    convert(model, recipe="whole", calibration=tokens(4, 16, seed=5), **request)
    return model, exact


def layers_in(model: nn.Module) -> list[Any]:
    """Return the linear layers and embeddings of a model."""
    return [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Embedding))]


def test_everything_is_a_code(family: str) -> None:
    model, exact = whole(family)
    with torch.inference_mode(), audit(model, linear=True) as found:
        model(input_ids=tokens())
    assert not found.entries
    assert {layer.weight.dtype for layer in layers_in(model)} == {torch.int8}
    assert (logits(model, tokens()) - exact).norm() < 0.2 * exact.norm()


def test_a_planted_float_sum_is_found() -> None:
    model, _ = whole()
    layer = model.model.layers[1].mlp.down_proj

    def plant(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return output + 0.1

    handle = layer.register_forward_hook(plant)
    with torch.inference_mode(), audit(model, linear=True) as found:
        model(input_ids=tokens())
    handle.remove()
    assert [(entry.path, entry.op) for entry in found.entries] == [("model.layers.1.mlp", "add")]  # where the hook runs


def test_a_simulation_is_the_closed_form_and_names_every_population() -> None:
    model, _ = whole(settings={"num_hidden_layers": 1})
    expected = logits(model, tokens(1, 5))
    with simulate(model) as simulation:
        found = logits(model, tokens(1, 5))
    assert torch.equal(found, expected)
    operators = {"linear", "add", "multiply", "attention", "quantise", "rotary", "rms_norm", "silu"}
    assert {name.partition("/")[0] for name in simulation.populations} == operators
    assert all(name.partition("/")[2] for name in simulation.populations)


@pytest.mark.parametrize("schedule", ["bits", "signed_digits", "count", "rate"])
@pytest.mark.parametrize(
    "recipe", [{}, {"inputs": 16, "cache": 64, "block": 8, "rotated_block": 8}], ids=["", "blocks"]
)
def test_a_prediction_is_the_simulation(recipe: dict[str, int], schedule: Any) -> None:
    """Layers, residuals and everything else, in every schedule; with blocks, levels are 6 bits wider."""
    model = tiny_model("llama", num_hidden_layers=1)
    convert(model, recipe=Whole(**recipe), calibration=False)
    expected, realisation = logits(model, tokens(1, 5)), Realisation(schedule=schedule)
    with simulate(model, realisation) as simulation:
        logits(model, tokens(1, 5))
    with count(model, realisation) as counted:
        assert torch.equal(logits(model, tokens(1, 5)), expected)
    for one, other in zip(counted.entries, simulation.entries, strict=True):
        assert (one.path, one.operator, one.calls) == (other.path, other.operator, other.calls)
        same_events(one.events, other.events)


def test_rows_do_not_depend_on_their_batch(family: str) -> None:
    model, _ = whole(family)
    together = logits(model, tokens())
    assert torch.equal(logits(model, tokens()[1:]), together[1:])
    padded, mask = torch.zeros(2, 16, dtype=torch.long), torch.zeros(2, 16, dtype=torch.long)
    padded[:, 4:], mask[:, 4:] = tokens(), 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    found = logits(model, padded, attention_mask=mask, position_ids=positions)
    assert torch.equal(found[:, 4:], together)


@pytest.mark.parametrize(
    "options",
    [{"use_cache": False}, {"cache_implementation": "static"}, {"num_beams": 3}, {"num_beams": 3, "use_cache": False}],
    ids=str,
)
def test_it_generates_with_any_cache(options: dict[str, Any]) -> None:
    model, _ = whole("qwen3")
    ids, mask = tokens(2, 8), torch.ones(2, 8, dtype=torch.long)
    ids[1, :3], mask[1, :3] = 0, 0

    def written(**options: Any) -> Tensor:
        return model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, **options)

    expected = written(num_beams=options.get("num_beams", 1))
    assert torch.equal(written(**options), expected)


@pytest.mark.parametrize("tied", [True, False])
def test_revert_is_bit_identical(family: str, tied: bool) -> None:
    model = tiny_model(family, tie_word_embeddings=tied)
    check = unchanged(model)
    parameters = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    for request in ({}, {"exclude": "lm_head"}, {"exclude": r"layers\.0"}):
        convert(model, recipe="whole", calibration=tokens(), **request)
        assert model.config.tie_word_embeddings is False
        revert(model)
        assert model.config.tie_word_embeddings is tied
        assert {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)} == parameters
        check()


class PlannedError(Exception):
    pass


@pytest.mark.parametrize("error", [PlannedError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("place", ["install", "gptq", "calibration", "progress", "last"])
def test_a_model_is_as_it_was_after_any_failure(
    place: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tie_word_embeddings=True).train()
    check, calls = unchanged(model), 0

    def failing(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= 6:
            raise error
        return original(*arguments, **keywords) if place in ("install", "gptq") else None

    progress = failing if place == "progress" else None
    original: Any = None
    if place == "install":
        original = coded.CodedPlug.install
        monkeypatch.setattr(coded.CodedPlug, "install", failing)
    elif place == "gptq":
        original = rounding.gptq
        monkeypatch.setattr(rounding, "gptq", failing)
    elif place == "calibration":
        calls = 3
        handle = model.model.layers[1].register_forward_hook(failing)
        check = unchanged(model) if calls == 3 else check
        calls = 3
    elif place == "last":

        def last(*_: Any) -> None:
            raise error

        monkeypatch.setattr("spikeplug.conversion.whole.plan.executed_in_float", last)
    with pytest.raises(error):
        convert(model, recipe="whole", calibration=tokens(), progress=progress)
    calls = -1000
    check()
    if place == "calibration":
        handle.remove()
    monkeypatch.undo()
    convert(model, recipe="whole", calibration=tokens())


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_copies_live_on_their_own(duplicate: Any) -> None:
    model, exact = whole(settings={"tie_word_embeddings": True})
    spiking = logits(model, tokens())
    twin = duplicate(model)
    assert torch.equal(logits(twin, tokens()), spiking)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}
    revert(twin)
    assert torch.equal(logits(twin, tokens()), exact)
    assert torch.equal(logits(model, tokens()), spiking)
    revert(model)
    assert torch.equal(logits(model, tokens()), exact)


def test_threads_give_the_same_bits() -> None:
    model, _ = whole()
    expected, found = logits(model, tokens()), []
    threads = [threading.Thread(target=lambda: found.append(logits(model, tokens()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(output, expected) for output in found)
    assert len(found) == 4


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "15KB"}], ids=["one file", "sharded"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_gives_the_same_bits(family: str, options: dict[str, Any], tied: bool, tmp_path: Path) -> None:
    model, _ = whole(family, settings={"tie_word_embeddings": tied})
    expected = logits(model, tokens())
    for folder in (tmp_path / "first", tmp_path / "second"):
        model.save_pretrained(folder, **options)
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert torch.equal(logits(model, tokens()), expected)
        with audit(model, linear=True) as found, torch.inference_mode():
            model(input_ids=tokens())
        assert not found.entries
    assert len(list((tmp_path / "first").glob("*.safetensors"))) > 1 or not options
    with pytest.raises(SpikeplugError, match="were freed or never loaded"):
        revert(model)
    assert torch.equal(logits(model, tokens()), expected)


@pytest.mark.parametrize("dtype", ["auto", torch.float32, torch.bfloat16, torch.float64])
def test_a_folder_of_float_weights_becomes_whole_while_it_loads(dtype: Any, tmp_path: Path) -> None:
    model = tiny_model()
    exact = logits(model, tokens())
    (model.bfloat16() if dtype == "auto" else model).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    config = SpikingConfig(recipe="whole")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config, dtype=dtype)
    assert loaded.model.layers[0].mlp.up_proj.weight.dtype == torch.int8
    assert (logits(loaded, tokens()) - exact).norm() < 0.25 * exact.norm()
    revert(loaded)
    assert torch.equal(logits(loaded, tokens()).float(), logits(model, tokens())) or dtype == torch.float64


def test_a_folder_takes_no_other_precision(tmp_path: Path) -> None:
    model, _ = whole()
    expected = logits(model, tokens())
    model.save_pretrained(tmp_path)
    for dtype in (torch.bfloat16, torch.float16, "auto"):
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype), tokens()), expected)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_whole_model_in_half_precision_is_saved_as_it_runs(family: str, tmp_path: Path) -> None:
    """Integers stay; gains and biases have fewer digits, and the folder has those."""
    model, _ = whole(family)
    for dtype in (torch.float16, torch.bfloat16):
        model = model.to(dtype)
        expected = logits(model, tokens())
        model.save_pretrained(tmp_path / str(dtype))
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / str(dtype))
        assert relative_error(logits(loaded, tokens()), expected) < 0.1


def test_freed_weights_are_gone_and_the_model_runs() -> None:
    model = tiny_model(tie_word_embeddings=True)
    weights = [weakref.ref(layer.weight) for layer in layers_in(model)]
    kept = copy.deepcopy(model)
    convert(kept, recipe="whole", calibration=tokens())
    convert(model, recipe="whole", calibration=tokens(), keep=False)
    gc.collect()
    assert not any(weight() is not None for weight in weights)
    assert torch.equal(logits(model, tokens()), logits(kept, tokens()))
    with pytest.raises(SpikeplugError, match=r"the float weights of \d+ layers, the first 'model.embed_tokens'"):
        revert(model)
    assert torch.equal(logits(model, tokens()), logits(kept, tokens()))
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin, tokens()), logits(kept, tokens()))


def test_weights_are_freed_one_by_one() -> None:
    """With free_early, never more float weights live than layers are left, and the integers are the same."""
    model = tiny_model(tie_word_embeddings=True)
    kept = copy.deepcopy(model)
    convert(kept, recipe="whole", calibration=tokens())
    weights = {id(layer.weight): weakref.ref(layer.weight) for layer in layers_in(model)}
    alive: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "rounding weights":
            alive.append((sum(weight() is not None for weight in weights.values()), total - done))

    convert(model, recipe="whole", calibration=tokens(), keep=False, free_early=True, progress=progress)
    assert len(alive) == len(weights) + 1, "the embedding and the output layer have one weight, rounded twice"
    assert all(count == left for count, left in alive)
    assert torch.equal(logits(model, tokens()), logits(kept, tokens()))
    with pytest.raises(SpikeplugError, match="were freed or never loaded"):
        revert(model)


def test_an_error_after_weights_were_freed_is_told() -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    for early in (False, True):
        model = tiny_model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(KeyboardInterrupt) as caught:
            convert(model, recipe="whole", calibration=tokens(), keep=False, free_early=early, progress=stop)
        notes = getattr(caught.value, "__notes__", [])
        lost = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
        assert len(lost) == (5 if early else 0)
        assert notes == (["The float weights of 5 layers were freed by then: load the model again."] if early else [])
        for name, tensor in model.state_dict().items():
            assert tensor.is_meta or torch.equal(tensor, before[name])
            assert tensor.shape == before[name].shape
    with pytest.raises(SpikeplugError, match="add keep=False"):
        convert(tiny_model(), recipe="whole", calibration=tokens(), free_early=True)
    with pytest.raises(SpikeplugError, match=r"weight.* on the meta device"):
        convert(model, recipe="whole", calibration=tokens())


def test_few_prepared_weights_are_alive_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folded weight is made when its layer is rounded, and gone before the next one's."""
    alive: list[weakref.ref[torch.Tensor]] = []
    own = Weights.__getitem__

    def made(self: Weights, name: str) -> torch.Tensor:
        assert not any(weight() is not None for weight in alive if name.endswith("weight"))
        alive.append(weakref.ref(found := own(self, name)))
        return found

    monkeypatch.setattr(Weights, "__getitem__", made)
    convert(tiny_model(), recipe="whole", calibration=tokens())
    assert len(alive) > 10


def test_gradients_reach_the_inputs() -> None:
    model, _ = whole()
    twin = tiny_model()
    gradients = []
    for each in (model, twin):
        inputs = twin.get_input_embeddings()(tokens()).detach().requires_grad_()
        if each is model:
            inputs = model.get_input_embeddings()(tokens()).detach().requires_grad_()
        each(inputs_embeds=inputs).logits.square().sum().backward()
        gradients.append(inputs.grad)
    assert bool(torch.isfinite(gradients[0]).all())
    assert float(gradients[0].norm()) > 0.1 * float(gradients[1].norm())


def test_training_mode_runs_and_is_kept() -> None:
    model = tiny_model("llama", attention_dropout=0.3).train()
    convert(model, recipe="whole", calibration=tokens())
    assert all(module.training for module in model.modules())
    model(input_ids=tokens(), labels=tokens())
    model.eval()
    before = logits(model, tokens())
    twin = tiny_model("llama", attention_dropout=0.3)
    convert(twin, recipe="whole", calibration=tokens())
    assert torch.equal(logits(twin, tokens()), before), "dropout is off while a model is calibrated"


@pytest.mark.parametrize("exclude", ["lm_head", "embed_tokens", r"layers\.1\.", "self_attn", r"mlp\.down_proj$"])
def test_excluded_modules_stay_exact(exclude: str) -> None:
    model = tiny_model(tie_word_embeddings=False)
    parts = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Embedding))}
    report = convert(model, recipe="whole", calibration=tokens(), exclude=exclude, strict=True)
    for name, module in parts.items():
        excluded = any(part in name for part in (exclude.replace("\\", "").rstrip("$"),))
        assert (module.weight.dtype == torch.float32) == excluded, name
    with torch.inference_mode(), audit(model, linear=True) as found:
        model(input_ids=tokens())
    assert found.entries or exclude == "embed_tokens"
    left = {entry.path for entry in report.left}
    assert {entry.path for entry in found.entries} <= left
    assert all("excluded" in entry.reason for entry in report.left)


def test_levels_are_those_of_the_recipe() -> None:
    errors = []
    for recipe in (Whole(), Whole.of_bits(6), Whole.of_bits(4)):
        model = tiny_model()
        exact = logits(model, tokens())
        convert(model, recipe=recipe, calibration=tokens())
        errors.append(float((logits(model, tokens()) - exact).norm()))
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.slow
def test_it_compiles_and_exports() -> None:
    model, _ = whole(settings={"num_hidden_layers": 1})
    expected = logits(model, tokens())
    program = torch.export.export(model, (tokens(),), {"use_cache": False})
    assert torch.equal(program.module()(tokens(), use_cache=False).logits, expected)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(logits(compiled, tokens()), expected)
