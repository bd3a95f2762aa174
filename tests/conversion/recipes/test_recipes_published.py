"""Recipes of pipelines: the converted model is the model with the published functions at the tensors that they code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from test_revert import snapshot
from tiny_models import DUPLICATES, logits, relative_error, tiny_model, tokens, unchanged
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import repeat_kv

from spikeplug.conversion import SpikingConfig, audit, convert, count, revert, simulate
from spikeplug.conversion.attention import PLUG
from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.recipes import RECIPES, Pipeline, Step, fas, las, phase, spikellm, spikezip
from spikeplug.conversion.recipes.neurons import Neuron, NeuronPlug
from spikeplug.errors import SpikeplugError
from spikeplug.operators.linear.neuron import neuron_of
from spikeplug.presets import PRESETS

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from architectures import ARCHITECTURES

CALIBRATION = tokens(4, 16, seed=5)
PIPELINES: dict[str, Callable[..., Pipeline]] = {
    "spikezip": spikezip,
    "spikellm": spikellm,
    "las": las,
    "phase": phase,
    "fas": lambda **choices: fas(signed=True, **choices),
    "spikezip, channels": lambda **choices: spikezip(channels=True, levels=64, **choices),
    "least squares": lambda **choices: spikezip(range="least squares", **choices),
    "phase, channels": lambda **choices: phase(channels=True, base=1.5, **choices),
}
every_pipeline = pytest.mark.parametrize("name", PIPELINES)


def converted(name: str, nonlinearities: Any = "exact", family: str = "llama", **request: Any) -> PreTrainedModel:
    model = tiny_model(family)
    convert(model, recipe=PIPELINES[name](nonlinearities=nonlinearities), calibration=CALIBRATION, **request)
    return model


def neurons(model: nn.Module) -> dict[tuple[str, str], Neuron]:
    """Return the neurons of a converted model, by path and site."""
    found: dict[tuple[str, str], Neuron] = {}
    for path, module in model.named_modules():
        plug, attention = plug_of(module), vars(module).get(PLUG)
        if isinstance(plug, NeuronPlug):
            found[path, plug.neuron.step.site] = plug.neuron
        if attention is not None:
            found |= {(path, site): neuron for site, neuron in attention.neurons.items()}
    return found


def opt() -> PreTrainedModel:
    """A decoder with ReLU."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}
    config = AutoConfig.for_model("opt", **sizes, word_embed_proj_dim=32, max_position_embeddings=64, dropout=0.0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def published(neuron: Neuron, x: Tensor) -> Tensor:
    """Return x, received in units of the threshold's, by the closed form of the publication in float64."""
    name, *numbers = neuron.kind.split()
    if name == "gif":
        assert neuron.salient is not None
        return fake_quantised(x, neuron.salient, *map(int, numbers))
    found = []
    for threshold, unit in neuron.thresholds:
        step = torch.ldexp(threshold.double(), unit)
        received = torch.ldexp(torch.ldexp(x.double(), -unit).round(), unit)
        size, sign = received.abs(), received.sign()
        if name == "st_bif":
            found.append(step * torch.floor(received / step + 0.5).clamp(int(numbers[0]), int(numbers[1])))
        elif name in ("qcfs", "if"):
            found.append(step * torch.floor(size / step + 0.5).clamp(0, int(numbers[0])) * sign)
        elif name == "phase":  # thresholds τ·B^-t, in whole steps
            weights = neuron_of(neuron.kind).weights
            assert max(abs(w / weights[0] * float(numbers[0]) ** t - 1) for t, w in enumerate(weights)) < 0.02
            found.append(greedy(size + step * min(weights) / 2, [step * weight for weight in weights]) * sign)
        else:
            most, times = step * 2 ** int(numbers[0]), range(1, 1 + int(numbers[0]))
            found.append(greedy(size, [most * 2.0**-k for k in times]) * sign)
    coded = found[0] if len(found) == 1 else torch.where(x.abs() > 10, found[1], found[0])
    return coded.to(x.dtype)


def fake_quantised(x: Tensor, salient: Tensor, bits: int, extra_bits: int) -> Tensor:
    """Return SpikeLLM's asymmetric codes of each token, sent by GIF neurons, on integers 11 bits wider."""
    width = 11 + bits + extra_bits
    unit = 2.0 ** (torch.frexp(x.abs().amax(-1, keepdim=True)).exponent - width).double()
    m = torch.floor(x.double().abs() / unit + 0.5) * x.sign()
    least, span = m.amin(-1, keepdim=True), m.amax(-1, keepdim=True) - m.amin(-1, keepdim=True)
    code_bits = bits + extra_bits * salient
    step = torch.ceil(span / (2.0**code_bits - 1)).clamp(min=1)
    zero = torch.floor(least.abs() / step + 0.5) * -least.sign()
    v, q = torch.floor((m + zero * step) / step + 0.5), torch.zeros_like(m)
    for time in range(1 << extra_bits):
        s = torch.minimum(v, torch.full_like(v, 1 << bits)) * (salient | (time == 0))
        v, q = v - s, q + s
    return ((q - zero) * step * unit).to(x.dtype)


def greedy(v: Tensor, thresholds: list[Tensor]) -> Tensor:
    total = torch.zeros_like(v)
    for threshold in thresholds:
        z = (v > threshold).double()
        v, total = v - threshold * z, total + threshold * z
    return total


@contextmanager
def hooked(model: PreTrainedModel, found: dict[tuple[str, str], Neuron]) -> Iterator[None]:
    """Run the publication's functions at the tensors of these neurons, by torch's hooks, in a model that is exact."""
    handles, paths = [], {module: path for path, module in model.named_modules()}

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = {"query": query, "key": key, "value": value}
        coded = [published(found[paths[module], site], x) for site, x in given.items()]
        probability = found.get((paths[module], "probability"))
        if probability is None:
            return sdpa_attention_forward(module, *coded, *args, **kwargs)
        query, key, value = coded[0], *(repeat_kv(x, module.num_key_value_groups) for x in coded[1:])
        scores = query @ key.transpose(2, 3) * kwargs["scaling"]
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        return (published(probability, weights) @ value).transpose(1, 2).contiguous(), None

    for (path, site), neuron in found.items():
        module = model.get_submodule(path)
        if site == "linear":
            handles.append(module.register_forward_pre_hook(lambda _, x, n=neuron: (published(n, x[0]), *x[1:])))
        elif site == "activation":
            handles.append(module.register_forward_hook(lambda _, x, y, n=neuron: published(n, y)))
    if any(site == "query" for _, site in found):
        AttentionInterface.register("sdpa", attend)
    try:
        yield
    finally:
        AttentionInterface.register("sdpa", sdpa_attention_forward)
        for handle in handles:
            handle.remove()


@every_pipeline
def test_the_model_is_the_one_with_the_published_functions(name: str, family: str) -> None:
    model, reference = converted(name, family=family), tiny_model(family)
    with hooked(reference, neurons(model)):
        expected = logits(reference, tokens())
    assert not torch.equal(expected, logits(reference, tokens()))
    assert torch.equal(logits(model, tokens()), expected)


@every_pipeline
@pytest.mark.parametrize("nonlinearities", ["exact", "spiking"])
def test_revert_gives_the_same_objects_and_bits(name: str, nonlinearities: str, family: str) -> None:
    model = tiny_model(family)
    before, exact = snapshot(model), logits(model, tokens())
    recipe = PIPELINES[name](nonlinearities=nonlinearities)
    first = None
    for _ in range(2):
        convert(model, recipe=recipe, calibration=CALIBRATION)
        coded = logits(model, tokens())
        assert not torch.equal(coded, exact)
        assert first is None or torch.equal(coded, first), "calibration is reproducible"
        first = coded
        revert(model)
        assert snapshot(model) == before
        assert torch.equal(logits(model, tokens()), exact)


@every_pipeline
def test_nonlinearities_are_spiking_or_exact(name: str) -> None:
    """Spiking ones leave nothing nonlinear in float, and cost little where the neurons have fine levels."""
    exact, spiking = converted(name), converted(name, "spiking")
    assert name != "las" or relative_error(logits(spiking, tokens()), logits(exact, tokens())) < 0.01
    with torch.inference_mode(), audit(spiking) as found:
        spiking(input_ids=tokens())
    assert not found.entries
    with torch.inference_mode(), audit(exact) as found:
        exact(input_ids=tokens())
    assert {entry.op for entry in found.entries} >= {"silu", "rsqrt"}


@pytest.mark.parametrize("preset", ["default", "narrow", "paper"])
def test_any_numerics_go_with_a_recipe(preset: str) -> None:
    model = converted("las", "spiking", numerics=preset)
    assert plug_of(model.model.norm).numerics == PRESETS[preset].numerics
    assert relative_error(logits(model, tokens()), logits(tiny_model(), tokens())) < 0.5


def test_the_report_names_every_neuron_and_every_deviation() -> None:
    model = tiny_model()
    recipe = spikezip()
    report = convert(model, recipe=recipe, calibration=CALIBRATION)
    assert report.counts["neuron"] == {"replaced": 15 + 4 * 2, "left": 0}  # 7 layers in each of 2, the head, attention
    assert {entry.note for entry in report.replaced if entry.operator == "neuron"} == {
        *(f"st_bif -16 15 at {what}" for what in ("inputs of linear layers", "queries", "keys", "values")),
        "st_bif 0 31 at probabilities of attention",
    }
    assert set(recipe.deviations) < set(report.notes)
    assert any("save_pretrained writes the exact model" in note for note in report.notes)
    assert not report.leftovers
    exact = convert(tiny_model(), recipe=spikezip(nonlinearities="exact"), calibration=CALIBRATION)
    assert {entry.reason for entry in exact.leftovers} == {"exact, by the recipe"}
    assert exact.counts["silu"] == {"replaced": 0, "left": 2}


@every_pipeline
def test_a_simulation_is_the_closed_form_and_as_predicted(name: str) -> None:
    model = converted(name, "spiking")
    expected = logits(model, tokens(1, 3))
    with simulate(model) as simulated:
        assert torch.equal(logits(model, tokens(1, 3)), expected)
    with count(model) as counted:
        assert torch.equal(logits(model, tokens(1, 3)), expected)
    operator = "gif" if name == "spikellm" else "neuron"
    assert simulated.populations[f"{operator}/spikes"].spikes > 0
    assert counted.populations[f"{operator}/spikes"] == simulated.populations[f"{operator}/spikes"]
    assert operator in {place.operator for place in simulated.entries}


def test_a_recipe_may_code_few_sites() -> None:
    """Keys alone: nothing else has a neuron, and the numbers of the neuron are those of any recipe."""
    model, reference = tiny_model(), tiny_model()
    step = Step(name="keys", site="key", neuron="qcfs 15")
    recipe = Pipeline(name="keys", source="none", steps=(step,), nonlinearities="exact")
    convert(model, recipe=recipe, calibration=CALIBRATION)
    found = neurons(model)
    assert {site for _, site in found} == {"key"}
    paths = {module: path for path, module in reference.named_modules()}

    def attend(module: Any, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        return sdpa_attention_forward(module, query, published(found[paths[module], "key"], key), *args, **kwargs)

    AttentionInterface.register("sdpa", attend)
    try:
        expected = logits(reference, tokens())
    finally:
        AttentionInterface.register("sdpa", sdpa_attention_forward)
    assert torch.equal(logits(model, tokens()), expected)
    assert not torch.equal(expected, logits(tiny_model(), tokens()))


@every_pipeline
def test_calibration_sets_thresholds(name: str) -> None:
    model = tiny_model()
    seen: dict[str, Tensor] = {}
    paths = {module: path for path, module in model.named_modules() if isinstance(module, nn.Linear)}

    def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.setdefault(paths[module], inputs[0].clone())

    handles = [module.register_forward_pre_hook(see) for module in paths]
    convert(model, recipe=PIPELINES[name](nonlinearities="exact"), calibration=CALIBRATION)
    for handle in handles:
        handle.remove()
    for (path, site), neuron in neurons(model).items():
        assert neuron.arrived is None
        if site != "linear":
            continue
        largest = float(seen[path].abs().max())
        if name == "spikellm":
            x, weight = seen[path].flatten(0, -2), model.get_submodule(path).weight.detach()
            score = (x * (x @ weight.T @ weight)).mean(0)
            assert int(neuron.salient.sum()) == round(0.1 * len(score))
            assert float(score[neuron.salient].min()) >= float(score[~neuron.salient].max())
            continue
        ((threshold, unit), *outliers) = neuron.thresholds
        if neuron.step.channels:
            assert threshold.shape == unit.shape == seen[path].shape[-1:]
            top, last = torch.ldexp(threshold.double(), unit), neuron_of(neuron.kind).highest
            most = seen[path].flatten(0, -2).abs().amax(0).double()
            assert bool((top * last <= most * (1 + 2.0**-8)).all())
            assert bool((top * last >= most * (1 - 2.0**-8)).all())
            continue
        top = float(threshold) * 2.0 ** int(unit)
        if name == "phase":  # the last level is the largest magnitude
            assert top * 255 == pytest.approx(largest, rel=2.0**-11)
        if name == "las":
            assert top * 65535 == pytest.approx(10.0, rel=2.0**-7)
            assert float(outliers[0][0]) * 2.0 ** int(outliers[0][1]) * 65535 == pytest.approx(largest, rel=2.0**-7)
        if name.startswith("spikezip"):
            assert top * 15 == pytest.approx(largest, rel=2.0**-7)
        if name == "least squares":
            x = seen[path].double().flatten()

            def error(step: float, x: Tensor = x) -> float:
                return float((step * torch.floor(x / step + 0.5).clamp(-16, 15) - x).square().sum())

            others = [largest / 15 * 2.0 ** (-place / 4) for place in range(20)]
            assert error(top) <= min(map(error, others)) * 1.01


@every_pipeline
@pytest.mark.parametrize("preset", ["paper", "narrow"])
def test_thresholds_are_those_of_exact_nonlinearities(name: str, preset: str) -> None:
    exact = neurons(converted(name, "exact"))
    spiking = neurons(converted(name, "spiking", numerics=preset))
    assert exact.keys() == spiking.keys()
    for place, neuron in exact.items():
        other = spiking[place]
        assert neuron.kind == other.kind
        for threshold, found in zip(neuron.thresholds, other.thresholds, strict=True):
            assert all(map(torch.equal, threshold, found))
        assert neuron.salient is None or torch.equal(neuron.salient, other.salient)


def test_a_function_of_the_users_is_refused_where_it_would_be_dropped_unsaid() -> None:
    calls: list[nn.Module] = []

    def attention(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls.append(module)
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register("users_own", attention)
    AttentionMaskInterface.register("users_own", sdpa_mask)
    model = tiny_model()
    model.set_attn_implementation("users_own")
    exact = logits(model, tokens())
    for how in ({"recipe": las(nonlinearities="exact")}, {"recipe": "las", "operators": ("silu",)}):
        check = unchanged(model)
        with pytest.raises(SpikeplugError, match=r"'users_own', .* call model.set_attn_implementation\(\"sdpa\"\)"):
            convert(model, calibration=CALIBRATION, **how)
        check()
    # Without probabilities it runs on, and with spiking nonlinearities the report says that it does not.
    convert(model, recipe=spikellm(nonlinearities="exact"), calibration=CALIBRATION)
    calls.clear()
    logits(model, tokens())
    assert len(calls) == 2
    revert(model)
    report = convert(model, recipe="las", calibration=CALIBRATION)
    assert {entry.note for entry in report.replaced if entry.operator == "attention"} == {
        "in place of the attention function 'users_own', which no longer runs"
    }
    revert(model)
    assert torch.equal(logits(model, tokens()), exact)
    model.set_attn_implementation("sdpa")
    convert(model, recipe=las(nonlinearities="exact"), calibration=CALIBRATION)


def test_a_tensor_without_negative_numbers_uses_all_levels() -> None:
    model = opt()
    convert(model, recipe="spikezip", calibration=CALIBRATION)
    kinds = {path: neuron.kind for (path, _), neuron in neurons(model).items()}
    assert {kinds[path] for path in kinds if path.endswith("fc2")} == {"st_bif 0 31"}
    assert {kinds[path] for path in kinds if path.endswith("fc1")} == {"st_bif -16 15"}


def test_fas_goes_with_relu_and_refuses_other_activations() -> None:
    model = opt()
    before = logits(model, tokens())
    report = convert(model, recipe="fas", calibration=CALIBRATION)
    assert {(entry.path, entry.note) for entry in report.entries if entry.operator == "neuron"} == {
        (f"model.decoder.layers.{layer}.activation_fn", "if 8 at outputs of activations") for layer in range(2)
    }
    assert not torch.equal(logits(model, tokens()), before)
    model = tiny_model()
    check = unchanged(model)
    with pytest.raises(
        SpikeplugError, match=r"outputs of activations of model.layers.0.mlp.act_fn reach -0\.\d+, .* signed=True"
    ):
        convert(model, recipe="fas", calibration=CALIBRATION)
    check()


def test_excluded_modules_stay_exact() -> None:
    model = converted("spikezip", exclude=r"layers\.0\.|lm_head")
    found = {path for path, _ in neurons(model)}
    assert found
    assert all(path.startswith("model.layers.1.") for path in found)
    spiking = converted("spikezip", "spiking", exclude=r"layers\.0\.|lm_head")
    assert {path for path, _ in neurons(spiking)} == found
    with torch.inference_mode(), audit(spiking) as left:
        spiking(input_ids=tokens())
    assert left.entries
    assert all(entry.path.startswith("model.layers.0") for entry in left.entries)


def test_a_layer_that_calibration_never_reaches_stays_exact_and_is_named() -> None:
    model = tiny_model()
    model.unused = nn.Linear(4, 4)
    report = convert(model, recipe="las", calibration=CALIBRATION)
    (entry,) = [entry for entry in report.left if entry.operator == "neuron"]
    assert (entry.path, entry.reason) == ("unused", "never reached by the calibration: give more")
    x = torch.randn(2, 4)
    assert torch.equal(model.unused(x), nn.functional.linear(x, model.unused.weight, model.unused.bias))


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_copies_have_their_own_neurons(duplicate: Callable[[Any], Any]) -> None:
    model = converted("spikezip", "spiking")
    expected = logits(model, tokens())
    copy = duplicate(model)
    revert(model)
    assert torch.equal(logits(copy, tokens()), expected)
    revert(copy)
    assert torch.equal(logits(copy, tokens()), logits(model, tokens()))


def test_generation_with_a_cache_gives_the_same_tokens() -> None:
    """Where levels are fine: float sums of linear layers depend on the number of rows, and coarse levels show it."""
    model = converted("las", "spiking")
    how = {"max_new_tokens": 8, "do_sample": False}
    ids = tokens(1, 6)
    assert torch.equal(model.generate(ids, use_cache=True, **how), model.generate(ids, use_cache=False, **how))


def test_a_saved_model_is_the_exact_one(tmp_path: Path) -> None:
    model, exact = tiny_model(), logits(tiny_model(), tokens())
    convert(model, recipe="las", calibration=CALIBRATION)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa").eval()
    assert torch.equal(logits(loaded, tokens()), exact)
    with pytest.raises(SpikeplugError, match="load it first, then call"):
        SpikingConfig(recipe="las")


@pytest.mark.parametrize("nonlinearities", ["exact", "spiking"])
@pytest.mark.parametrize(
    "name", ["BERT", "GPT-2", "T5", "Whisper", "ViT", "CLIP", "Mixtral", "torch.nn.Transformer", "Mamba"]
)
def test_any_architecture(name: str, nonlinearities: Any) -> None:
    (architecture,) = (each for each in ARCHITECTURES if each.name == name)
    model, inputs = architecture.build(), architecture.inputs()
    with torch.inference_mode():
        exact = architecture.output(model(**inputs))
        report = convert(model, recipe=las(nonlinearities=nonlinearities), calibration=inputs)
        coded = architecture.output(model(**inputs))
        revert(model)
        assert torch.equal(architecture.output(model(**inputs)), exact)
    assert report.counts["neuron"]["replaced"] > 3
    assert 0 < relative_error(coded, exact) < 0.1


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"calibration": False}, "the recipe las calibrates thresholds: give calibration"),
        ({"calibration": None}, "the recipe las calibrates thresholds: give calibration"),
        ({"strict": True, "recipe": las(nonlinearities="exact")}, "strict goes with spiking nonlinearities"),
        ({"operators": ("silu",), "recipe": las(nonlinearities="exact")}, 'goes with nonlinearities="spiking"'),
        ({"keep": False}, 'keep=False goes with recipe="whole"'),
        ({"unfinished": "folder"}, 'unfinished goes with recipe="whole"'),
        ({"exclude": "nowhere"}, "finds none of the paths"),
        ({"exclude": "."}, "leaves nothing to replace"),
        ({"recipe": "spikezap"}, 'choose "operators", "whole", "spikezip", "spikellm", "fas", "las", "phase"'),
        ({"calibration": torch.tensor([[1, 2, 4000]])}, "the model knows 97"),
    ],
    ids=str,
)
def test_bad_requests_change_nothing(request_: dict[str, Any], words: str) -> None:
    model = tiny_model()
    check = unchanged(model)
    with pytest.raises(SpikeplugError, match=words):
        convert(model, **{"recipe": "las", "calibration": CALIBRATION, **request_})
    check()


def test_a_model_without_what_a_recipe_codes_is_refused() -> None:
    model = nn.Sequential(nn.LayerNorm(4), nn.SiLU())
    with pytest.raises(SpikeplugError, match=r"nothing that the recipe las codes \(inputs of linear layers, queries"):
        convert(model, recipe="las", calibration={"input": torch.randn(2, 4)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_does_not_calibrate(value: float) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = value
    with pytest.raises(SpikeplugError, match=r"of model.layers.1.mlp.down_proj hold NaN or infinity in calibration"):
        convert(model, recipe=las(nonlinearities="exact"), calibration=CALIBRATION)


def test_recipes_are_data_that_is_checked() -> None:
    for name, make in RECIPES.items():
        assert make().name == name
        assert make().source
        assert make().deviations
    with pytest.raises(SpikeplugError, match=r"8 time steps are too few .* use at least 16"):
        spikezip(levels=32, steps=8)
    with pytest.raises(SpikeplugError, match=r"too few .* use at least 31"):
        spikezip(levels=32, steps=30)
    with pytest.raises(SpikeplugError, match="each at its own site"):
        Pipeline(name="none", source="", steps=())
    step = Step(name="inputs", site="linear", neuron="qcfs 3")
    with pytest.raises(SpikeplugError, match="each at its own site"):
        Pipeline(name="twice", source="", steps=(step, step))
    for fields, words in (
        ({"site": "softmax"}, "choose linear, activation"),
        ({"range": "wide"}, 'choose "largest"'),
        ({"range": "at most x"}, 'choose "largest"'),
        ({"neuron": "lif"}, "unknown neuron"),
        ({"outliers": True}, "beyond a fixed range"),
        ({"range": "each vector"}, "a GIF neuron, and no other"),
        ({"neuron": "gif 4 1"}, "a GIF neuron, and no other"),
        ({"neuron": "gif 4 1", "range": "each vector", "salient": 2.0}, "salient from 0 to 1"),
    ):
        with pytest.raises(SpikeplugError, match=words):
            Step(**{"name": "inputs", "site": "linear", "neuron": "qcfs 3", **fields})
    with pytest.raises(SpikeplugError, match='"spiking" or "exact"'):
        las(nonlinearities="paper")  # type: ignore[arg-type]
