"""Packed rows: every branch gets the states of its own sequence run alone, and all gradients, whatever is beside it."""

from __future__ import annotations

import random

import pytest
import torch

from launch.errors import DataError
from launch.packing import SHORT, Tree, counters, hidden_states, pack, tree_of
from tests.launch.packed import assert_same_gradients, backbone_of, random_trees, states_alone, states_packed

# ---------------------------------------------------------------- trees and rows


def test_tree_of_takes_what_is_common_and_leaves_each_branch_a_token() -> None:
    """[1 2 3 4], [1 2 3 5 6] share 1 2 3. Of [1 2] and [1 2 3], the first keeps its 2. A single [1 2 3] keeps its 3."""
    assert tree_of([[1, 2, 3, 4], [1, 2, 3, 5, 6]]) == Tree([1, 2, 3], [[4], [5, 6]])
    assert tree_of([[1, 2], [1, 2, 3]]) == Tree([1], [[2], [2, 3]])
    assert tree_of([[1, 2, 3]]) == Tree([1, 2], [[3]])
    assert tree_of([[1, 2], [1, 2]]) == Tree([1], [[2], [2]])
    assert tree_of([[1, 2], [3]]) == Tree([], [[1, 2], [3]])


def test_tree_of_shares_no_more_than_asked() -> None:
    assert tree_of([[1, 2, 3, 4], [1, 2, 3, 5]], shared=2) == Tree([1, 2], [[3, 4], [3, 5]])
    assert tree_of([[1, 2, 3], [1, 2]], shared=2) == Tree([1], [[2, 3], [2]])  # the answer was cut away
    with pytest.raises(DataError, match="share 1 first tokens, not 2"):
        tree_of([[1, 2, 3], [1, 4, 5]], shared=2)


@pytest.mark.parametrize("wrong", [[], [[]], [[1], []]])
def test_nothing_is_no_tree(wrong: list[list[int]]) -> None:
    with pytest.raises(DataError, match="at least one"):
        tree_of(wrong)
    with pytest.raises(DataError, match="at least one"):
        Tree([1], wrong)


def test_rows_by_hand() -> None:
    """A tree of 3 + 2 + 1 tokens and one of 1 + 1, rows of 8: one row, longest first, positions continued."""
    packed = pack([Tree([7], [[8]]), Tree([1, 2, 3], [[4, 5], [6]])], pad_id=9, row_tokens=9)
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1]]
    assert packed.tree.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]
    assert packed.branch.tolist() == [[0, 0, 0, 1, 1, 2, 0, 1]]
    assert (packed.rows, packed.starts) == ([0, 0], [6, 0])
    assert packed.branch_spans == [[(7, 8)], [(3, 5), (5, 6)]]
    assert [packed.column(1, 0, p) for p in range(5)] == [0, 1, 2, 3, 4]
    assert packed.column(1, 1, 3) == 5
    apart = pack([Tree([7], [[8]]), Tree([1, 2, 3], [[4, 5], [6]])], pad_id=9)
    assert apart.input_ids.tolist() == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 9, 9, 9]]
    assert apart.tree.tolist()[1] == [0, 0, -1, -1, -1, -1]


@pytest.mark.parametrize("row_tokens", [0, 1, 70, 200, 10**6])
def test_every_token_is_packed_once_and_rows_hold_what_they_may(row_tokens: int) -> None:
    trees = random_trees(random.Random(0), 12)
    packed = pack(trees, row_tokens=row_tokens)
    longest = max(map(len, trees))
    assert packed.input_ids.shape[1] <= max(row_tokens, longest)
    assert int((packed.tree >= 0).sum()) == sum(map(len, trees))
    for n, tree in enumerate(trees):
        for branch, (start, end) in zip(tree.branches, packed.branch_spans[n], strict=True):
            assert packed.input_ids[packed.rows[n], start:end].tolist() == branch
        at = packed.starts[n]
        assert packed.input_ids[packed.rows[n], at : at + len(tree.trunk)].tolist() == tree.trunk
    if row_tokens == 10**6:
        assert len(packed.input_ids) == 1 and counters(packed)["tokens_padded"] == 0


def test_counters_by_hand() -> None:
    """Trunk 3, branches 2 and 1: pairs 6 + (2 x 3 + 3) + (1 x 3 + 1) = 19; two rows of 5 and 4 hold 15 + 10."""
    found = counters(pack([Tree([1, 2, 3], [[4, 5], [6]])]))
    assert found == {
        "tokens_real": 6, "tokens_padded": 0, "tokens_shared": 3, "pairs": 19, "row_pairs": 36,
        "kfold_tokens_real": 9, "kfold_tokens_padded": 1, "kfold_pairs": 25,
    }  # fmt: skip


# ---------------------------------------------------------------- states and gradients


@pytest.mark.parametrize("by_segment", [True, False])
@pytest.mark.parametrize("row_tokens", [0, 150, 10**6])
def test_packed_states_and_gradients_are_those_of_each_sequence_alone(row_tokens: int, by_segment: bool) -> None:
    """Trees of K = 1 to 5 with trunks of 0 to 30 tokens; order of trees changes nothing either."""
    model = backbone_of("llama")
    trees = random_trees(random.Random(1), 6)
    expected, wanted = states_alone(model, trees)
    for order in (range(6), reversed(range(6))):
        some = list(order)
        found, gradients = states_packed(model, [trees[n] for n in some], row_tokens, by_segment=by_segment)
        for n, states in zip(some, found, strict=True):
            assert torch.allclose(torch.cat(states), torch.cat(expected[n]), atol=1e-5)
        assert_same_gradients(gradients, wanted)


def test_padding_and_neighbours_reach_no_state() -> None:
    """Other pad ids and other trees in the row: the same bits, or equal up to rounding of another row length."""
    model = backbone_of("llama")
    trees = random_trees(random.Random(2), 3)
    with torch.no_grad():
        alone = hidden_states(model, **pack(trees[:1]).tensors())
        for pad_id in (0, 5):
            packed = pack(trees, pad_id=pad_id, row_tokens=500)
            found = hidden_states(model, **packed.tensors())
            at = packed.starts[0]
            mine = found[packed.rows[0], at : at + len(trees[0])]
            assert torch.allclose(mine, alone[0], atol=1e-5)
            assert torch.isfinite(found).all()


@pytest.mark.parametrize(("length", "by_segment"), [(SHORT - 1, False), (SHORT, True)])
def test_short_texts_run_under_a_dense_mask(length: int, by_segment: bool) -> None:
    """Two texts of `length` tokens beside each other: a row each, or all their tokens in one."""
    model, shapes = backbone_of("llama"), []
    model.register_forward_pre_hook(lambda _, a, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True)
    trees = [Tree([], [list(range(3, 3 + length))])] * 2
    hidden_states(model, **pack(trees).tensors())
    assert shapes == [(1, 2 * length) if by_segment else (2, length)]


def test_columns_of_a_branch_that_lie_apart_are_refused() -> None:
    packed = pack([Tree([1, 2], [[3], [4]])])
    packed.branch[0] = torch.tensor([0, 1, 0, 2])
    with pytest.raises(DataError, match="lie apart"):
        hidden_states(backbone_of("llama"), **packed.tensors(), by_segment=True)
