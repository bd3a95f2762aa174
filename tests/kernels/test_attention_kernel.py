"""Contract: attention's kernel gives the bits of the closed form, from queries to output, however it is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kernels.cases import ATTENTION_SIZES, CONFIGS, attentions, both, by_kernel, closed_form, generator, same_bits
from torch import Tensor

from spikeplug.kernels import Call, explain, loaded
from spikeplug.numerics import Numerics
from spikeplug.saturation import saturations


def run_by_kernel(name: str, given: tuple[Any, ...], numerics: Numerics) -> tuple[Tensor, Tensor]:
    """As `both`, for calls that the kernel is to take whole."""
    return by_kernel(name, given, numerics), closed_form(name, given, numerics)


def is_taken(given: tuple[Any, ...], numerics: Numerics) -> bool:
    """Whether attention's kernel supports the call."""
    return explain(Call("attention", given, numerics)) == "Numba attention"


@pytest.mark.parametrize("numerics", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", ATTENTION_SIZES)
def test_attention(size: tuple[int, ...], numerics: Numerics) -> None:
    for kind, given in attentions(size).items():
        ours, closed = both("attention", given, numerics, taken=is_taken(given, numerics))
        assert same_bits(ours, closed), kind


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_in_half_precision(dtype: torch.dtype) -> None:
    for kind, given in attentions((1, 4, 2, 9, 30, 16, 16), dtype).items():
        ours, closed = both("attention", given, Numerics(), taken=kind != "softcap")
        assert ours.dtype == dtype
        assert same_bits(ours, closed), kind


def test_attention_of_strided_heads() -> None:
    """(B, T, H, D) transposed, as models have it, and keys that end before their storage does, as caches do."""
    g = torch.Generator().manual_seed(3)
    query = torch.randn(2, 11, 6, 16, generator=g).transpose(1, 2)
    key, value = (torch.randn(2, 40, 2, 16, generator=g).transpose(1, 2)[:, :, :23] for _ in range(2))
    mask = torch.ones(11, 40, dtype=torch.bool).tril(12)[:, :23]
    ours, closed = both("attention", (query, key, value, mask, None, None, None), Numerics())
    assert same_bits(ours, closed)


def test_a_padded_batch() -> None:
    """(B, 1, 1, K): one mask for all rows of a sentence."""
    query, key, value, *_ = attentions((3, 4, 2, 9, 31, 16, 16))["plain"]
    mask = torch.arange(31)[None, None, None] < torch.tensor([31, 20, 1])[:, None, None, None]
    for given in (mask, torch.where(mask, 0.0, torch.finfo(torch.float32).min)):
        ours, closed = both("attention", (query, key, value, given, None, None, None), Numerics())
        assert same_bits(ours, closed)


@pytest.mark.parametrize("channels", [1, 16, 24, 96, 128, 256, 600])
def test_head_dimensions(channels: int) -> None:
    given = attentions((1, 4, 2, 40, 150, channels, channels))["causal"]
    assert same_bits(*run_by_kernel("attention", given, Numerics()))


@pytest.mark.parametrize(("bits", "working_bits"), [(16, 22), (16, 24), (16, 17), (2, 24), (9, 23)])
def test_sums_at_the_edge_of_32_bits(bits: int, working_bits: int) -> None:
    """Equal weights, as large as there are, times values as large as there are, over many carries, both signs."""
    numerics = Numerics(bits=bits, working_bits=working_bits)
    query, key = torch.zeros(1, 1, 13, 16), torch.ones(1, 1, 3000, 16)
    value = torch.full((1, 1, 3000, 12), 1 - 2.0**-24)
    value[..., 1::3] *= -1
    value[:, :, ::2, 2::3] *= -1
    assert same_bits(*run_by_kernel("attention", (query, key, value, None, None, None, None), numerics))


@pytest.mark.parametrize("query_key_bits", [8, 13, 16])
def test_products_at_the_edge_of_32_bits(query_key_bits: int) -> None:
    """Parallel and opposite vectors whose norm is as large as it may be."""
    numerics, g = Numerics(query_key_bits=query_key_bits), generator(query_key_bits)
    vectors = torch.randn(1, 1, 40, 64, generator=g) * torch.linspace(1, 4, 40)[:, None]
    key = torch.cat([vectors, -vectors, torch.ones(1, 1, 9, 64) * 0.7072, torch.eye(64)[None, None, :9]], 2)
    given = (vectors.repeat(1, 2, 1, 1), key, torch.randn(1, 1, key.shape[2], 8, generator=g), None, 1e-3, None, None)
    assert same_bits(*run_by_kernel("attention", given, numerics))


@pytest.mark.parametrize("query_key_bits", [10, 14])
def test_vectors_so_long_that_rounding_moves_their_norm(query_key_bits: int) -> None:
    """Equal channels of 21.49 steps: as codes of 21 they fit, though 21.49² is beyond 65/64 of what a square may be."""
    channels = (1 << (2 * query_key_bits - 1)) // 442
    key = torch.tensor([21.49, 21.51, 20.49, 10.0])[None, None, :, None].expand(1, 1, 4, channels).contiguous()
    given = (key[:, :, :2], key, torch.arange(16.0).view(1, 1, 4, 4), None, 1e-6, None, None)
    assert same_bits(*run_by_kernel("attention", given, Numerics(query_key_bits=query_key_bits)))


@pytest.mark.parametrize("size", [(1, 2, 1, 7, 512, 8, 8), (1, 2, 1, 7, 513, 8, 8), (1, 1, 1, 2, 5000, 8, 9)])
@pytest.mark.parametrize("kind", ["plain", "causal", "a row that sees nothing", "sinks", "bias"])
def test_more_keys_than_a_block_of_limbs(size: tuple[int, ...], kind: str) -> None:
    assert same_bits(*run_by_kernel("attention", attentions(size)[kind], Numerics()))


def test_windows_and_rows_that_see_few() -> None:
    query, key, value, *_ = attentions((1, 2, 2, 90, 90, 16, 16))["plain"]
    place = torch.arange(90)
    window = ((place[:, None] - place) < 20) & (place[:, None] >= place)
    blocks = place[:, None] // 7 == place // 7
    one = torch.zeros(90, 90, dtype=torch.bool)
    one[:, 77] = True
    for mask in (window, blocks, one, ~one, one & blocks):
        assert same_bits(*run_by_kernel("attention", (query, key, value, mask, None, None, None), Numerics()))


def test_more_keys_than_doubles_hold_are_left_to_the_closed_form() -> None:
    numerics = Numerics(bits=16, working_bits=24)  # 39 bits a product leave 2^14 keys
    given = attentions((1, 1, 1, 1, (1 << 14) + 1, 4, 4))["plain"]
    assert not is_taken(given, numerics)
    assert same_bits(*run_by_kernel("attention", attentions((1, 1, 1, 1, 1 << 14, 4, 4))["plain"], numerics))


@pytest.mark.parametrize(
    "change", [{"query_key_bits": None}, {"query_key_bits": 17}, {"bits": 17}, {"divide_last": False}]
)
def test_what_attentions_kernel_leaves_to_the_closed_form(change: dict[str, Any]) -> None:
    given, numerics = attentions((1, 4, 2, 9, 31, 16, 16))["causal"], Numerics(**change)
    assert not is_taken(given, numerics)
    assert same_bits(*both("attention", given, numerics, taken=False))


def test_attention_does_not_depend_on_threads_or_on_how_it_is_cut() -> None:
    """Reals: not one score may depend on what it is computed beside."""
    query, key, value, *_ = attentions((3, 6, 2, 61, 61, 40, 24))["plain"]
    mask = torch.ones(61, 61, dtype=torch.bool).tril()

    def kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return by_kernel("attention", (query, key, value, mask, None, None, None))

    whole = kernel(query, key, value, mask)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(kernel(query, key, value, mask), whole)
            for i in range(3):
                assert torch.equal(kernel(query[i : i + 1], key[i : i + 1], value[i : i + 1], mask)[0], whole[i])
            for i in range(0, 61, 7):
                rows = kernel(query[:, :, i : i + 7], key, value, mask[i : i + 7])
                assert torch.equal(rows, whole[:, :, i : i + 7])
                step = kernel(query[:, :, i : i + 1], key[:, :, : i + 1], value[:, :, : i + 1])
                assert torch.equal(step, whole[:, :, i : i + 1])
            one_head = kernel(query[:, 3:6], key[:, 1:], value[:, 1:], mask)
            assert torch.equal(one_head, whole[:, 3:6])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("where", ["query", "key", "value", "bias", "scores"])
def test_batches_with_rare_rows_alone_are_run_in_closed_form(where: str) -> None:
    """The rows of other batches are the kernel's; what is counted is counted once."""
    query, key, value, *_ = attentions((3, 4, 2, 5, 19, 16, 16))["plain"]
    query, key, value, bias = query.clone(), key.clone(), value.clone(), torch.zeros(3, 1, 5, 19)
    if where == "bias":
        bias[1, 0, 2, 3] = torch.nan
    elif where == "scores":
        query[1, 2, 3] = 1e30
    else:
        {"query": query, "key": key, "value": value}[where][1, 1, 2, 3] = torch.inf
    given = (query, key, value, bias, None, None, None)
    output, rare = loaded("cpu")["attention"].run(Call("attention", given, Numerics()))
    assert rare is not None
    assert rare.tolist() == [False, True, False]
    ours, closed = both("attention", given)
    assert same_bits(ours, closed)
    assert same_bits(output[::2], closed[::2])


def test_masks_that_all_batches_share_are_not_cut() -> None:
    """As many rows as batches: only what has the batches' dimension may be cut."""
    query, key, value, *_ = attentions((5, 2, 1, 5, 9, 8, 8))["plain"]
    query = query.clone()
    query[3, 0, 0, 0] = torch.nan
    mask = torch.rand(5, 9, generator=generator(5)) < 0.7
    for shared in (mask, mask[None], mask[None, None], mask[None, None].expand(5, -1, -1, -1)):
        assert same_bits(*both("attention", (query, key, value, shared, None, None, torch.randn(2))))


@pytest.mark.parametrize("place", ["sinks", "a sink below 0", "bias", "both"])
@pytest.mark.parametrize("broken", [False, True])
def test_huge_sinks_and_biases_are_counted_once(place: str, broken: bool) -> None:
    """Times log2(e) they leave float32; a batch that is run again must not count them again."""
    query, key, value, *_ = attentions((2, 4, 2, 5, 19, 16, 16))["plain"]
    sinks, bias = torch.tensor([1.0, 3e38, -3e38, torch.inf]), torch.zeros(5, 19)
    bias[2, 3], bias[4, 4], bias[0, 0] = 3.2e38, -3.2e38, torch.inf
    query = query.clone()
    if broken:
        query[1, 1, 1, 1] = torch.nan
    bias_given, sinks_given, count = {
        "sinks": (None, sinks, 2),
        "a sink below 0": (None, sinks.clamp(max=1), 1),
        "bias": (bias, None, 1),
        "both": (bias, sinks, 3),
    }[place]
    assert same_bits(*both("attention", (query, key, value, bias_given, None, None, sinks_given)))
    assert saturations()["attention: bias or sink beyond its dtype"] == count
