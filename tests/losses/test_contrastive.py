"""The contrastive loss against published golden values, a loop written from the formula, and its corners."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.losses.contrastive import Contrastive, same
from embed.types import Loss, PairEmbeddings

QUERY = [[1, 0, 0, 0], [0, 1, 0, 0], [0.6, 0.8, 0, 0]]
TARGET = [[0.8, 0.6, 0, 0], [0, 0.6, 0.8, 0], [0.6, 0, 0.8, 0]]
NEGATIVES = [[[0.6, 0, 0.8, 0]], [[0.8, 0, 0, 0.6]], [[0, 0, 0.6, 0.8]]]
DUPLICATE_01 = [[7, 7], [7, 7], [8, 8]]
GOLDEN = {
    "no hard negative": (Contrastive(0.1), False, None, 2.277420266822334),
    "own hard negative": (Contrastive(0.1), True, None, 2.3153833932315817),
    "hardness 5": (Contrastive(0.1, hardness=5.0), True, None, 2.68514690275134),
    "hardness 5, literal": (Contrastive(0.1, hardness=5.0, literal_mask=True), True, None, 2.3539711330067514),
    "hardness 5, duplicates": (Contrastive(0.1, hardness=5.0), True, DUPLICATE_01, 2.4548920171240245),
}


@functools.cache
def compiled(loss: Contrastive):
    """Returns the compiled ((value, metrics), gradient by the towers) of towers, mask and ids."""

    def total(towers, mask, query_id, target_id):
        return loss(PairEmbeddings(*towers, negatives_mask=mask, query_id=query_id, target_id=target_id))

    options = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    }  # compiling is most of the time
    return jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=options)


def ids(values):
    """Returns content hashes uint32 [B, 2], equal where `values` are; the second word alone tells them apart."""
    return jnp.asarray([[5, v] for v in values], jnp.uint32)


def golden_loss(case: str, dtype) -> float:
    loss, hard, duplicates, _ = GOLDEN[case]
    outputs = PairEmbeddings(
        query=jnp.asarray(QUERY, dtype),
        target=jnp.asarray(TARGET, dtype),
        negatives=jnp.asarray(NEGATIVES, dtype) if hard else None,
        query_id=None if duplicates is None else jnp.asarray(duplicates, jnp.uint32),
    )
    value, _ = loss(outputs)
    assert value.dtype == dtype
    return float(value)


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_value_in_float32(case):
    assert golden_loss(case, jnp.float32) == pytest.approx(GOLDEN[case][-1], rel=1e-6, abs=0)


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_value_in_float64(case):
    with jax.enable_x64(True):
        assert golden_loss(case, jnp.float64) == pytest.approx(GOLDEN[case][-1], rel=0, abs=1e-12)
    assert jnp.zeros(1).dtype == jnp.float32


def test_golden_duplicates_count_when_the_targets_are_the_same():
    with jax.enable_x64(True):
        q, p, n = (jnp.asarray(x, jnp.float64) for x in (QUERY, TARGET, NEGATIVES))
        value, _ = Contrastive(0.1, hardness=5.0)(
            PairEmbeddings(q, p, n, target_id=jnp.asarray(DUPLICATE_01, jnp.uint32))
        )
        assert float(value) == pytest.approx(GOLDEN["hardness 5, duplicates"][-1], rel=0, abs=1e-12)


def cosine(x, y) -> float:
    return sum(a * b for a, b in zip(x, y)) / math.sqrt(sum(a * a for a in x) * sum(b * b for b in y))


def hard_weights(query, negatives, hardness):
    return [[math.exp(hardness * cosine(q, n)) for n in own] for q, own in zip(query, negatives)]


def reference(query, target, negatives, mask, query_id, target_id, loss, weights) -> float:
    """Returns the loss by loops over rows and columns; `weights` are the hardness weights, taken as constants."""
    total, tau = 0.0, loss.temperature
    for i, q in enumerate(query):
        denominator = 0.0
        for j, p in enumerate(target):
            duplicate = query_id[i] == query_id[j] or target_id[i] == target_id[j]
            if (i == j and not loss.literal_mask) or (i != j and not (duplicate and loss.mask_duplicates)):
                denominator += math.exp(cosine(q, p) / tau)
                if loss.same_tower and i != j:
                    denominator += math.exp(cosine(q, query[j]) / tau)
        for k, n in enumerate(negatives[i]):
            if mask[i][k]:
                denominator += weights[i][k] * math.exp(cosine(q, n) / tau)
        total += math.log(denominator) - cosine(q, target[i]) / tau
    return total / len(query)


def numeric_gradient(function, arrays, step=1e-5):
    """Returns central differences of function(*arrays) by every value of every array."""
    gradients = [np.zeros_like(a) for a in arrays]
    for array, gradient in zip(arrays, gradients):
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + step
            above = function(*arrays)
            array[index] = kept - step
            gradient[index] = (above - function(*arrays)) / (2 * step)
            array[index] = kept
    return gradients


GRID = [
    case
    for case in itertools.product(
        (0, 1, 3), (0.0, 5.0), (False, True), ("none", "query", "target", "both"), (False, True)
    )
    if case[0] or not case[-1]
]


@pytest.mark.parametrize(("count", "hardness", "literal", "duplicates", "partly"), GRID)
def test_value_and_gradient_match_the_loops(count, hardness, literal, duplicates, partly):
    check_against_loops(Contrastive(0.2, hardness, literal), count, duplicates, partly)


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(
    "switches", [{"mask_duplicates": False}, {"same_tower": True}, {"mask_duplicates": False, "same_tower": True}]
)
def test_the_switches_for_comparisons_match_the_loops(count, switches):
    check_against_loops(Contrastive(0.2, 0.0, **switches), count, "both", False)


@pytest.mark.slow
def test_without_duplicates_the_mask_changes_nothing_to_the_bit():
    outputs = corner("plain")
    masked, plain = (Contrastive(0.2, mask_duplicates=on)(outputs)[0] for on in (True, False))
    assert masked == plain


def check_against_loops(loss: Contrastive, count: int, duplicates: str, partly: bool) -> None:
    hardness = loss.hardness
    random = np.random.default_rng(sum(map(ord, f"{count}{hardness}{loss.literal_mask}{duplicates}{partly}")))
    size, width = 4, 3
    query, target = random.normal(size=(2, size, width))
    negatives = random.normal(size=(size, count, width))
    mask = np.ones((size, count), bool)
    if partly:
        mask[0], mask[2, -1] = False, False
    query_id = [1, 2, 1, 3] if duplicates in ("query", "both") else [1, 2, 3, 4]
    target_id = [1, 2, 3, 2] if duplicates in ("target", "both") else [1, 2, 3, 4]
    weights = hard_weights(query, negatives, hardness)

    def by_loops(q, p, n):
        return reference(q, p, n, mask, query_id, target_id, loss, weights)

    expected = by_loops(query, target, negatives)
    expected_gradient = numeric_gradient(by_loops, [query, target, negatives])
    with jax.enable_x64(True):
        towers = [jnp.asarray(a, jnp.float64) for a in (query, target, negatives)[: 3 if count else 2]]
        own_mask = jnp.asarray(mask) if partly else None
        (value, _), gradient = jax.device_get(compiled(loss)(towers, own_mask, ids(query_id), ids(target_id)))
    assert value == pytest.approx(expected, rel=0, abs=1e-12)
    for ours, numeric in zip(gradient, expected_gradient):
        np.testing.assert_allclose(ours, numeric, rtol=0, atol=1e-8)


@pytest.mark.slow
def test_the_hardness_weight_has_no_gradient():
    random = np.random.default_rng(0)
    query, target = random.normal(size=(2, 3, 4))
    negatives = random.normal(size=(3, 2, 4))
    loss, unique = Contrastive(0.2, 5.0), [1, 2, 3]
    mask, weights = np.ones((3, 2), bool), hard_weights(query, negatives, 5.0)

    def constant(n):
        return reference(query, target, n, mask, unique, unique, loss, weights)

    def moving(n):
        return reference(query, target, n, mask, unique, unique, loss, hard_weights(query, n, 5.0))

    by_constant, by_moving = (numeric_gradient(f, [negatives])[0] for f in (constant, moving))
    assert np.abs(by_constant - by_moving).max() > 1e-2
    with jax.enable_x64(True):
        q, p = jnp.asarray(query, jnp.float64), jnp.asarray(target, jnp.float64)
        ours = jax.grad(lambda n: loss(PairEmbeddings(q, p, n))[0])(jnp.asarray(negatives, jnp.float64))
        np.testing.assert_allclose(ours, by_constant, rtol=0, atol=1e-8)


def corner(name: str) -> PairEmbeddings:
    random = np.random.default_rng(3)
    size = 1 if name == "one row" else 4
    query, target = (jnp.asarray(random.normal(size=(size, 6)), jnp.float32) for _ in range(2))
    negatives = jnp.asarray(random.normal(size=(size, 2, 6)), jnp.float32)
    mask = jnp.ones((size, 2), bool)
    unique = ids(range(size))
    if name == "zero vectors":
        query, target, negatives = query.at[0].set(0), target.at[0].set(0).at[1].set(0), negatives.at[2, 1].set(0)
    if name == "all negatives masked":
        mask = jnp.zeros_like(mask)
    if name == "all duplicates, all negatives masked":
        mask, unique = jnp.zeros_like(mask), ids([9] * size)
    if name == "all duplicates":
        unique = ids([9] * size)
    return PairEmbeddings(query, target, negatives, mask, unique, unique)


CORNERS = ["all duplicates", "all duplicates, all negatives masked", "one row", "zero vectors", "all negatives masked"]


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("name", CORNERS)
def test_corners_are_finite_forward_and_backward(name, literal, hard):
    if name == "one row" and literal and not hard:
        return
    o = corner(name)
    towers = [o.query, o.target, *([o.negatives] if hard else [])]
    mask = o.negatives_mask if hard else None
    (value, metrics), gradient = compiled(Contrastive(0.05, 5.0, literal))(towers, mask, o.query_id, o.target_id)
    assert np.isfinite(value)
    assert all(np.isfinite(v) for v in metrics.values())
    assert all(np.isfinite(g).all() for g in gradient)


def test_all_duplicates_without_negatives_cost_nothing():
    o = corner("all duplicates")
    value, metrics = Contrastive(0.1)(PairEmbeddings(o.query, o.target, query_id=o.query_id))
    assert float(value) == pytest.approx(0.0, abs=1e-6)
    assert float(metrics["masked_share"]) == 1.0


def test_masked_negatives_equal_no_negatives():
    o = corner("all negatives masked")
    masked, _ = Contrastive(0.1, 5.0)(o)
    without, _ = Contrastive(0.1, 5.0)(PairEmbeddings(o.query, o.target, query_id=o.query_id, target_id=o.target_id))
    assert float(masked) == float(without)


def test_literal_mask_undefined_term_divides_by_the_batch():
    """Row 2 shares its query with row 0 and its target with row 1: without negatives it adds 0 to a sum over B = 3."""
    q, p = np.random.default_rng(8).normal(size=(2, 3, 4))
    query_id, target_id = [1, 2, 1], [1, 2, 2]
    terms = [(cosine(q[0], p[1]) - cosine(q[0], p[0])) / 0.2, (cosine(q[1], p[0]) - cosine(q[1], p[1])) / 0.2, 0.0]
    with jax.enable_x64(True):
        outputs = PairEmbeddings(jnp.asarray(q), jnp.asarray(p), query_id=ids(query_id), target_id=ids(target_id))
        value, _ = Contrastive(0.2, literal_mask=True)(outputs)
        assert float(value) == pytest.approx(sum(terms) / 3, abs=1e-12)


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("tower", [0, 1, 2])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(None)], ids=["one", "all"])
def test_an_embedding_that_is_not_a_number_is_not_hidden(tower, rows, literal):
    o = corner("none")
    towers = [o.query, o.target, o.negatives]
    towers[tower] = towers[tower].at[rows].set(jnp.nan)
    (value, _), _ = compiled(Contrastive(0.05, 5.0, literal))(towers, o.negatives_mask, o.query_id, o.target_id)
    assert np.isnan(value)


def test_literal_mask_refuses_a_batch_of_one_without_negatives():
    one = jnp.ones((1, 3))
    with pytest.raises(ConfigError, match="literal_mask.*batch of one"):
        Contrastive(literal_mask=True)(PairEmbeddings(one, one))


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ConfigError, match="temperature"):
        Contrastive(temperature)


def test_inputs_need_not_be_unit_vectors():
    random = np.random.default_rng(4)
    q, p, n = random.normal(size=(4, 5)), random.normal(size=(4, 5)), random.normal(size=(4, 2, 5))
    sizes = [np.exp(random.uniform(-7, 7, size=(*x.shape[:-1], 1))) for x in (q, p, n)]
    with jax.enable_x64(True):
        loss = Contrastive(0.1, 5.0)
        plain, _ = loss(PairEmbeddings(*(jnp.asarray(x) for x in (q, p, n))))
        scaled, _ = loss(PairEmbeddings(*(jnp.asarray(x * s) for x, s in zip((q, p, n), sizes))))
        assert float(scaled) == pytest.approx(float(plain), rel=0, abs=1e-12)


@pytest.mark.parametrize("literal", [False, True])
def test_unique_ids_change_nothing(literal):
    o = corner("none")
    loss = Contrastive(0.1, 5.0, literal)
    on, off = loss(o), loss(PairEmbeddings(o.query, o.target, o.negatives, o.negatives_mask))
    assert float(on[0]) == float(off[0])
    assert {k: float(v) for k, v in on[1].items()} == {k: float(v) for k, v in off[1].items()}


def test_hashes_are_the_same_only_when_both_words_are():
    items = jnp.asarray([[1, 2], [1, 3], [4, 2], [1, 2]], jnp.uint32)
    found = same(items, items)
    np.testing.assert_array_equal(found, [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]])


def test_metrics_by_hand():
    """Row 2 loses to its own hard negative; rows 0, 1 and 3 share their query, so their targets are no rivals."""
    eye = np.eye(4)
    target = np.stack([eye[0], eye[0] + 0.5 * eye[1], eye[2], eye[3]])
    query = np.stack([eye[0], 0.9 * eye[0] + 0.1 * eye[1], eye[2] + 0.5 * eye[1], 0.1 * eye[3] + eye[0]])
    negatives = np.stack([eye[2], eye[2], eye[2] + 0.4 * eye[1], eye[0]])[:, None]
    mask = np.array([[True], [True], [True], [False]])
    _, metrics = Contrastive(0.1)(
        PairEmbeddings(
            *(jnp.asarray(x, jnp.float32) for x in (query, target, negatives)),
            jnp.asarray(mask),
            query_id=ids([1, 1, 2, 1]),
        )
    )
    own = [cosine(q, p) for q, p in zip(query, target)]
    assert float(metrics["positive_similarity"]) == pytest.approx(np.mean(own), rel=1e-5)
    assert float(metrics["masked_share"]) == pytest.approx(6 / 12)
    assert float(metrics["accuracy"]) == pytest.approx(3 / 4)


def test_accuracy_counts_queries_whose_target_is_nearest():
    query = jnp.asarray([[1, 0], [0, 1], [1, 0.1]], jnp.float32)
    target = jnp.asarray([[1, 0.2], [0, 1], [0, 1]], jnp.float32)
    _, metrics = Contrastive(0.1)(PairEmbeddings(query, target))
    assert float(metrics["accuracy"]) == pytest.approx(1 / 3)  # row 1 ties with row 2's equal target


@pytest.mark.parametrize("size", [46_342, 65_536, 1 << 20])
def test_batches_of_more_pairs_of_pairs_than_32_bits_count(size):
    """Traced, not run."""
    shape = jax.ShapeDtypeStruct
    outputs = PairEmbeddings(
        query=shape((size, 4), jnp.float32),
        target=shape((size, 4), jnp.float32),
        negatives=shape((size, 2, 4), jnp.float32),
        query_id=shape((size, 2), jnp.uint32),
        target_id=shape((size, 2), jnp.uint32),
    )

    def both(outputs):
        of = lambda query: Contrastive()(dataclasses.replace(outputs, query=query))  # noqa: E731
        return jax.value_and_grad(of, has_aux=True)(outputs.query)

    (value, metrics), gradient = jax.eval_shape(both, outputs)
    assert value.shape == () and gradient.shape == (size, 4)
    assert all(jnp.issubdtype(m.dtype, jnp.floating) for m in metrics.values())


def test_is_a_loss():
    assert isinstance(Contrastive(), Loss)


def loop_with_positive_negatives(outputs: PairEmbeddings, temperature: float) -> float:
    """The formula as loops in float64; a hard negative that is a positive of its query, by ids, does not enter."""
    query, target, negatives = (np.asarray(x, np.float64) for x in (outputs.query, outputs.target, outputs.negatives))
    query_id, target_id, negatives_id = (
        [tuple(i) for i in np.asarray(x).reshape(-1, 2)]
        for x in (outputs.query_id, outputs.target_id, outputs.negatives_id)
    )
    size, count = negatives.shape[:2]
    total = 0.0
    for i in range(size):
        positives = {target_id[j] for j in range(size) if query_id[j] == query_id[i]}
        terms = [math.exp(query[i] @ target[i] / temperature)]
        for j in range(size):
            if j != i and query_id[j] != query_id[i] and target_id[j] != target_id[i]:
                terms.append(math.exp(query[i] @ target[j] / temperature))
        for n in range(count):
            if negatives_id[i * count + n] not in positives:
                terms.append(math.exp(query[i] @ negatives[i, n] / temperature))
        total += math.log(sum(terms)) - query[i] @ target[i] / temperature
    return total / size


def test_a_hard_negative_that_is_a_positive_of_its_query_is_masked():
    """Row 0 has its own target as a negative, row 1 that of row 2, which asks the same; row 3 has the target of another query."""
    random = np.random.default_rng(0)
    unit = lambda *shape: (x := random.standard_normal(shape)) / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    ids = lambda values: np.stack([np.array(values), np.full(len(values), 5)], -1).astype(np.uint32)  # noqa: E731
    outputs = PairEmbeddings(
        query=jnp.asarray(unit(4, 8), jnp.float32),
        target=jnp.asarray(unit(4, 8), jnp.float32),
        negatives=jnp.asarray(unit(4, 2, 8), jnp.float32),
        query_id=ids([1, 2, 2, 3]),
        target_id=ids([11, 12, 13, 14]),
        negatives_id=ids([11, 99, 98, 13, 97, 96, 11, 95]).reshape(4, 2, 2),
    )
    loss = Contrastive(0.1)
    assert float(loss(outputs)[0]) == pytest.approx(loop_with_positive_negatives(outputs, 0.1), rel=1e-5)
    apart = ids([90, 99, 98, 91, 97, 96, 11, 95]).reshape(4, 2, 2)  # the target of another query stays a negative
    unmasked = dataclasses.replace(outputs, negatives_id=apart)
    assert float(loss(unmasked)[0]) > float(loss(outputs)[0]) + 1e-3
    assert float(loss(unmasked)[0]) == pytest.approx(loop_with_positive_negatives(unmasked, 0.1), rel=1e-5)
    assert float(Contrastive(0.1, mask_duplicates=False)(outputs)[0]) > float(loss(outputs)[0])
