"""Test rotations: orthogonal, the same on every call, and invisible when a writer and a reader both turn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spikeplug.weights import Rotation, rotate_online
from spikeplug.weights.rotation import signs


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("rotation", [Rotation(48, seed=3), Rotation(12), Rotation(16, seed=1)], ids=str)
def test_lengths_are_kept(rotation: Rotation) -> None:
    x = random(5, 48)
    turned = rotation.apply(x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(turned, x)


@pytest.mark.parametrize("rotation", [Rotation(48, seed=3), Rotation(12), Rotation(16, seed=1)], ids=str)
def test_a_turned_writer_and_a_turned_reader_cancel(rotation: Rotation) -> None:
    writer, reader, x = random(48, 7), random(9, 48), random(4, 7)
    expected = x @ writer.T @ reader.T
    found = x @ rotation.of_writer(writer).T @ rotation.of_reader(reader).T
    torch.testing.assert_close(found, expected)


def test_a_vector_turns_as_the_columns_do() -> None:
    rotation, bias = Rotation(12, seed=5), random(24)
    torch.testing.assert_close(rotation.of_writer(bias), rotation.apply(bias))


def test_chosen_rows_turn_and_others_stay() -> None:
    rows = ((9, 4, 1, 6), (0, 2, 11, 8))
    weight = random(12, 5)
    turned = Rotation(4, rows=rows).of_writer(weight)
    for block in rows:
        torch.testing.assert_close(turned[list(block)], Rotation(4).of_writer(weight[list(block)]))
    others = [3, 5, 7, 10]
    assert torch.equal(turned[others], weight[others])


def test_signs_are_pinned() -> None:
    assert signs(12, 2605).tolist() == signs(12, 2605).tolist()
    assert set(signs(64, 1).tolist()) == {-1, 1}
    assert signs(64, 1).tolist() != signs(64, 2).tolist()


@pytest.mark.parametrize("block", [4, 16, 64])
def test_the_online_transform_is_its_own_inverse(block: int) -> None:
    x = random(3, 2 * block)
    torch.testing.assert_close(rotate_online(rotate_online(x, block), block), x)
