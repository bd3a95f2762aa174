"""Arms without spikes: costs computed by hand from the sizes of a token, comparisons refused, break-even lines."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from tiny_model import tiny_model
from transformers import MambaConfig, MambaForCausalLM

import spikeplug
from spikeplug import SpikeplugError
from spikeplug.hardware.arms import Cost, arms_of, check_arms, costs, verdicts
from spikeplug.hardware.break_even import context_sentences, growths, lines
from spikeplug.hardware.pricing import energy
from spikeplug.hardware.tables import load_table, table_names
from spikeplug.hardware.workload import SpikesPerValue, Token, Work, one_token, spikes_per_value

IDS = list(range(2, 14))
DIGITAL = load_table("digital45")


@pytest.fixture(scope="module")
def operators() -> Token:
    model = tiny_model()
    spikeplug.convert(model)
    return one_token(model, IDS)


@pytest.fixture(scope="module")
def whole_model():
    model = tiny_model()
    spikeplug.convert(model, recipe="whole", calibration=False)
    return model


@pytest.fixture(scope="module")
def whole(whole_model) -> Token:
    return one_token(whole_model, IDS)


def cost(token: Token, arm: str, table: str = "digital45", levels: int = 256) -> Cost:
    tokens = {"ours": token}
    (found,) = (one for one in costs(tokens, [load_table(table)], ["ours", arm], levels, 0) if one.arm == arm)
    return found


def test_the_sizes_of_a_token(operators: Token, whole: Token) -> None:
    """One token of the tiny model: 32 channels, 64 hidden, 4 heads of 8, 2 of them for keys; 12 tokens."""
    sizes = {(work.path, work.operator): work for work in operators.work}
    assert sizes["model.layers.0.mlp.act_fn", "silu"] == Work("model.layers.0.mlp.act_fn", "silu", 64, 0, 64, 0)
    attention = sizes["model.layers.0.self_attn", "attention"]
    assert (attention.numbers_in, attention.weights, attention.numbers_out) == (32, 2 * 2 * 12 * 8, 32)
    assert attention.macs == 2 * 4 * 12 * 8
    of_whole = {(work.path, work.operator): work for work in whole.work}
    up = of_whole["model.layers.1.mlp.up_proj", "linear"]
    assert (up.numbers_in, up.weights, up.numbers_out, up.macs) == (32, 32 * 64, 64, 32 * 64)
    linear = sum(work.macs for work in whole.work if work.operator == "linear")
    assert linear == 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64) + 32 * 256
    same = of_whole["model.layers.0.self_attn", "attention"]
    assert vars(same) == vars(attention)


def test_a_token_is_counted_as_the_last_of_a_pass_with_a_cache(whole_model, whole: Token) -> None:
    read = torch.tensor([IDS])
    with torch.inference_mode():
        cache = whole_model(input_ids=read[:, :-1], use_cache=True).past_key_values
        with spikeplug.count(whole_model) as counted:
            whole_model(input_ids=read[:, -1:], past_key_values=cache)
    assert counted.total == whole.events.total
    assert whole.context == 12


def test_int8_is_its_products_and_its_traffic(whole: Token) -> None:
    found = cost(whole, "int8")
    macs = sum(work.macs or work.numbers_out for work in whole.work if work.linear or work.macs)
    assert found.terms["arithmetic"] == macs * (Fraction("0.2") + Fraction("0.1"))
    # All but the head, of 8,192 weights, fit 8 KiB; the head's fit them exactly.
    assert found.terms["weight traffic"] == sum(work.weights for work in whole.work) * Fraction(8, 32) * 10
    moved = sum(work.numbers_in + work.numbers_out for work in whole.work)
    assert found.terms["traffic"] == moved * Fraction(8, 32) * 10
    assert found.low == found.high == sum(found.terms.values())
    assert found.moved == moved + sum(work.weights for work in whole.work)


def test_qnn_has_the_bits_of_the_levels_and_float32_has_32(whole: Token) -> None:
    assert cost(whole, "qnn", levels=255).terms == cost(whole, "int8").terms
    nine, eight = cost(whole, "qnn", levels=256).terms, cost(whole, "int8").terms
    assert nine["traffic"] == eight["traffic"] * Fraction(9, 8)
    assert nine["weight traffic"] == eight["weight traffic"]
    exact = cost(whole, "float32").terms
    macs = eight["arithmetic"] / Fraction("0.3")
    assert exact["arithmetic"] == macs * Fraction("4.6")
    # The head's 8,192 weights of 32 bits fill 32 KiB, at 20 pJ per word; the 2,048 of other layers still fit 8 KiB.
    assert exact["weight traffic"] == (sum(w.weights for w in whole.work) + 8192) * 10


def test_off_chip_is_the_transfers_and_what_stays(operators: Token, whole: Token) -> None:
    for token in (operators, whole):
        found = cost(token, "off-chip", "loihi1-sanafe")
        outside = [work for work in token.work if not work.linear]
        words = Fraction(sum(work.numbers_in + work.weights + work.numbers_out for work in outside), 2)
        assert found.terms["transfers"] == words * 1300
        assert found.high - found.low == words * 1300
        stays = energy(token.events, "loihi1-sanafe").only({work.operator for work in token.work if work.linear})
        assert found.low - found.terms["transfers"] - found.terms["float arithmetic"] == stays.total
    assert energy(operators.events).only(set()).total == 0


def test_ours_is_the_energy_of_the_events(whole: Token) -> None:
    found = costs({"ours": whole}, [load_table("loihi1-davies")], ["ours"], 256, 2)
    assert found[0].low == energy(whole.events, "loihi1-davies", hops=2).total


def test_a_graded_spike_counts_once_for_the_published_groups() -> None:
    model = tiny_model()
    spikeplug.convert(model, "paper")
    paper = one_token(model, IDS)
    (found,) = costs({"paper": paper}, [load_table("odin")], ["paper"], 256, 0)
    assert found.low == energy(paper.events, "odin", graded=True).total < energy(paper.events, "odin").total
    groups = [p for p in paper.events.populations.values() if p.name == "attention/divide"]
    arriving = energy(paper.events, "odin", graded=True).by("population")["attention/divide/numerator"]
    assert arriving == groups[0].driven_updates * Fraction("12.7")


@pytest.mark.parametrize("arm", ["int8", "qnn", "float32"])
@pytest.mark.parametrize("table", [name for name in table_names() if name != "digital45"])
def test_arms_without_spikes_need_prices_of_the_same_technology(arm: str, table: str, whole: Token) -> None:
    found = cost(whole, arm, table)
    assert found.low == 0
    assert found.refusal is not None
    assert found.refusal.startswith(f"the arm {arm} cannot be compared by {table}: that table has no prices")
    assert found.to_dict()["low"] is None


def test_arms_go_with_what_the_recipe_converts() -> None:
    assert arms_of(whole=False) == ("ours", "paper", "off-chip")
    assert arms_of(whole=True) == ("ours", "off-chip", "int8", "qnn", "float32")
    assert check_arms(("int8", "off-chip"), whole=True) == ("ours", "off-chip", "int8")
    with pytest.raises(
        SpikeplugError, match=r"the arm int8 cannot be compared with nonlinear operators alone: .*whole"
    ):
        check_arms(("int8",), whole=False)
    with pytest.raises(
        SpikeplugError, match=r"the arm paper cannot be compared with a whole model: .*recipe operators"
    ):
        check_arms(("paper",), whole=True)
    with pytest.raises(SpikeplugError, match=r"unknown arm 'fp4': choose out of ours, paper"):
        check_arms(("fp4",), whole=True)


def made(arm: str, low: int, high: int | None = None, context: int = 8, table: str = "digital45") -> Cost:
    return Cost(arm, load_table(table), context, Fraction(low), Fraction(low if high is None else high))


def test_verdicts_say_who_loses_and_how_much() -> None:
    assert verdicts([made("ours", 21), made("int8", 10)]) == [
        "Ours costs 2.1 times as much as the int8 arm by digital45 at a context of 8."
    ]
    assert verdicts([made("ours", 5), made("paper", 10)]) == [
        "The paper arm costs 2 times as much as ours by digital45 at a context of 8."
    ]
    (unsure,) = verdicts([made("ours", 5), made("off-chip", 4, 8)])
    assert "costs 0.625 to 1.25 times" in unsure
    assert "neither is cheaper for certain" in unsure
    (all_in,) = verdicts([made("ours", 2, table="odin"), made("off-chip", 1, table="odin")])
    assert "the price is one of another load" in all_in
    assert not verdicts([made("ours", 0), made("int8", 1)])


def test_verdicts_say_the_share_of_memory_and_what_has_no_total(whole: Token) -> None:
    tables = [load_table(name) for name in table_names()]
    found = verdicts(costs({"ours": whole}, tables, arms_of(whole=True), 256, 0))
    assert any("memory traffic is" in text and "by digital45" in text for text in found)
    assert any(text.startswith("No total by darwin3: it has no price for") for text in found)
    (dense,) = (text for text in found if text.startswith("The arms int8, qnn, float32 cannot be compared by darwin3"))
    assert all(name in dense for name in table_names())


def test_a_model_without_a_cache_is_counted_from_its_first_token_alone() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    model = MambaForCausalLM(MambaConfig(**sizes)).eval()
    spikeplug.convert(model)
    with pytest.raises(SpikeplugError, match=r"keeps no keys and values of earlier tokens.*give --context 1"):
        one_token(model, [1, 2, 3])


def test_the_break_even_lines_of_45_nm() -> None:
    found = {(line.what, line.kib): line for line in lines(DIGITAL)}
    assert found["arithmetic alone", None].spikes == 3
    # int8: 0.3 pJ and 8 bits of a weight; a spike: 0.1 pJ, the weight, and two words of membrane at 10 pJ.
    assert found["weights read, too", 8].spikes == Fraction("2.8") / Fraction("2.6")
    assert found["weights and membranes", 1024].spikes == Fraction("25.3") / Fraction("45.1")
    assert not lines(load_table("odin"))
    measured = [SpikesPerValue(4, 0.9, 1.4), SpikesPerValue(16, 1.6, 5.5), SpikesPerValue(256, 3.4, 88.0)]
    assert found["arithmetic alone", None].most_levels(measured, "phase") == 16
    assert found["arithmetic alone", None].most_levels(measured, "count") == 4
    assert found["weights and membranes", 8].most_levels(measured, "phase") is None


def test_contexts_break_even_where_the_lines_cross() -> None:
    costs_ = [made("ours", 10, context=1), made("ours", 19, context=10), made("int8", 15, context=1)]
    costs_ += [made("int8", 15, context=10), made("paper", 100, context=1), made("paper", 190, context=10)]
    found = {growth.arm: growth for growth in growths(costs_)}
    assert (found["ours"].start, found["ours"].slope, found["ours"].crossing) == (9, 1, None)
    assert found["int8"].crossing == 6
    assert context_sentences(list(found.values())) == [
        "Ours breaks even with the int8 arm by digital45 at a context of about 6, and costs more beyond it: on the "
        "line through the shortest and the longest context.",
        "Ours costs less than the paper arm at the shortest context and beyond by digital45.",
    ]
    assert not growths([made("ours", 10, context=1), made("int8", 10, context=1)])
    ranges = [made("ours", 9, context=1), made("ours", 9, context=2)]
    ranges += [made("off-chip", 8, 16, context=1), made("off-chip", 8, 16, context=2)]
    (ranged,) = context_sentences(growths(ranges))
    assert ranged.startswith("Ours costs more than the off-chip arm at its least price at the shortest context")


def test_spikes_per_value_rise_with_the_levels(whole_model) -> None:
    few, many = spikes_per_value(whole_model, IDS, (4, 256))
    assert 0 < few.phase <= few.count
    assert few.phase < many.phase < 9
    assert few.count < many.count <= 256
    with spikeplug.conversion.counting_spikes(whole_model) as counts, torch.inference_mode():
        whole_model(input_ids=torch.tensor([IDS]), use_cache=False)
    sent = list(counts.values())
    assert many.phase == sum(one.spikes for one in sent) / sum(one.levels for one in sent)
