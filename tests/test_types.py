"""Batches and pairs as trees of arrays: what JAX maps over, and what stays as it is."""

import dataclasses

import jax
import numpy as np
import pytest

from embed.types import Batch, Loss, Outputs, PairEmbeddings, Variables, needs_of


def test_a_batch_is_a_mapping_of_its_arrays():
    batch = Batch({"query": 1, "target": 2}, max_segments=4)
    assert dict(batch) == {"query": 1, "target": 2} and len(batch) == 2 and "query" in batch
    assert list(batch.items()) == [("query", 1), ("target", 2)] and batch.get("negatives") is None
    with pytest.raises(KeyError, match="negatives"):
        batch["negatives"]


def test_the_segments_of_a_batch_are_no_array():
    batch = Batch({"query": np.arange(3), "target": np.zeros(2)}, max_segments=4)
    doubled = jax.tree.map(lambda x: 2 * x, batch)
    assert isinstance(doubled, Batch) and doubled.max_segments == 4
    np.testing.assert_array_equal(doubled["query"], [0, 2, 4])
    assert len(jax.tree.leaves(batch)) == 2
    assert jax.tree.structure(batch) != jax.tree.structure(Batch(dict(batch), max_segments=5))


@pytest.mark.parametrize("kind, fields", [(Variables, ("params", "moving", "frozen")), (Outputs, ("rows", "sums"))])
def test_what_an_objective_holds_is_a_tree_by_the_names_of_its_fields(kind, fields):
    tree = kind(**{name: {"x": i} for i, name in enumerate(fields)})
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(tree)]
    assert paths == [f"{name}/x" for name in fields]
    assert jax.tree.map(lambda x: x + 1, tree) == kind(**{name: {"x": i + 1} for i, name in enumerate(fields)})


def test_every_side_of_pairs_is_mapped_and_nothing_else():
    sides = {"query": np.ones((2, 3)), "target": np.full((2, 3), 2.0), "negatives": np.full((2, 4, 3), 3.0)}
    rest = {
        "negatives_mask": np.ones((2, 4), bool),
        **{name: np.zeros((2, 2), np.uint32) for name in ("query_id", "target_id", "negatives_id")},
        "score": np.ones(2),
        "scores": np.ones((2, 5)),
        **{f"teacher_{side}": x[..., :2] for side, x in sides.items()},
        **{f"{side}_intermediate": x[..., :1] for side, x in sides.items()},
    }
    mapped = PairEmbeddings(**sides, **rest).map(lambda x: -x)
    for side, x in sides.items():
        np.testing.assert_array_equal(getattr(mapped, side), -x)
    assert all(getattr(mapped, name) is x for name, x in rest.items())


def test_pairs_without_negatives_have_none_after_it():
    mapped = PairEmbeddings(query=np.ones((1, 2)), target=np.zeros((1, 2))).map(lambda x: x + 1)
    assert mapped.negatives is None
    np.testing.assert_array_equal([mapped.query, mapped.target], [[[2, 2]], [[1, 1]]])
    assert len(jax.tree.leaves(mapped)) == 2


def test_a_loss_is_known_by_its_two_functions():
    class Whole:
        def init(self):
            return {}

        def __call__(self, pairs, params=None, step=0):
            return 0.0, {}

    class Half:
        def init(self):
            return {}

    assert isinstance(Whole(), Loss) and not isinstance(Half(), Loss)


def test_the_needs_of_a_loss_are_those_of_its_parts_each_once():
    @dataclasses.dataclass(frozen=True)
    class Part:
        needs: tuple

    @dataclasses.dataclass(frozen=True)
    class Joined:
        parts: dict
        inner: Part
        number: float = 1.0

    assert needs_of(Joined({"a": Part(("x", "y")), "b": 3}, Part(("y", "z")))) == ["x", "y", "z"]
    assert needs_of(object()) == []
