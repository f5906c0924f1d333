"""Losses with a teacher against their equations in float64, masked negatives, sizes that do not fit."""

import dataclasses

import jax
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.losses.distillation import CandidateKL, EmbeddingDistillation, MarginMSE
from embed.types import PairEmbeddings


def batch(masked=True):
    random = np.random.default_rng(0)
    x = random.normal(size=(2 + 3, 7, 4))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    mask = random.integers(0, 2, (7, 3)).astype(bool) if masked else None
    return PairEmbeddings(x[0], x[1], np.moveaxis(x[2:], 0, 1), mask, scores=random.normal(size=(7, 4)))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_loss_is_that_of_its_equation(masked, scale):
    pairs = batch(masked)
    errors = []
    for i in range(7):
        for k in range(3):
            if pairs.negatives_mask is None or pairs.negatives_mask[i, k]:
                margin = pairs.query[i] @ pairs.target[i] - pairs.query[i] @ pairs.negatives[i, k]
                errors.append((scale * margin - (pairs.scores[i, 0] - pairs.scores[i, 1 + k])) ** 2)
    with jax.enable_x64(True):
        np.testing.assert_allclose(MarginMSE(scale)(pairs)[0], np.mean(errors), rtol=1e-12)


@pytest.mark.slow
def test_a_negative_that_is_not_there_has_no_gradient():
    pairs = batch()
    gradient = jax.grad(
        lambda n: MarginMSE()(PairEmbeddings(pairs.query, pairs.target, n, pairs.negatives_mask, scores=pairs.scores))[
            0
        ]
    )
    found = np.asarray(gradient(pairs.negatives))
    assert (found[~pairs.negatives_mask] == 0).all() and (found[pairs.negatives_mask] != 0).any(-1).all()


LOSSES = pytest.mark.parametrize("loss", [MarginMSE(), CandidateKL()], ids=lambda loss: type(loss).__name__)


@LOSSES
def test_missing_scores_are_said(loss):
    pairs = dataclasses.replace(batch(), scores=None)
    with pytest.raises(
        ConfigError, match=f"{type(loss).__name__} needs .* scores; map the role .* Recipe.teacher_scores"
    ):
        loss(pairs)


@pytest.mark.slow
@LOSSES
def test_a_batch_of_a_task_without_negatives_has_no_loss_and_no_gradient(loss):
    pairs = batch()
    without = dataclasses.replace(pairs, negatives=None, negatives_mask=None, scores=pairs.scores[:, :1])
    value, gradient = jax.value_and_grad(lambda query: loss(dataclasses.replace(without, query=query))[0])(pairs.query)
    assert float(value) == 0.0 and not np.asarray(gradient).any()
    # It is the limit of a batch in which every record lacks its negatives.
    masked = dataclasses.replace(pairs, negatives_mask=np.zeros((7, 3), bool))
    assert loss(masked)[0] == 0.0 and loss(masked)[1].keys() == loss(without)[1].keys()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("temperatures", [(1.0, 1.0), (0.1, 0.5)])
def test_the_divergence_is_that_of_its_equation(masked, temperatures):
    pairs, (student_temperature, teacher_temperature) = batch(masked), temperatures
    divergences, agree = [], []
    for i in range(7):
        kept = [0, *(1 + k for k in range(3) if pairs.negatives_mask is None or pairs.negatives_mask[i, k])]
        cosines = np.array([pairs.query[i] @ x for x in (pairs.target[i], *pairs.negatives[i])])[kept]
        scores = pairs.scores[i][kept]
        p, q = (
            np.exp(x / t) / np.exp(x / t).sum()
            for x, t in ((scores, teacher_temperature), (cosines, student_temperature))
        )
        divergences.append(np.sum(p * np.log(p / q)))
        agree.append(np.argmax(scores) == np.argmax(cosines))
    with jax.enable_x64(True):
        value, metrics = CandidateKL(*temperatures)(pairs)
    np.testing.assert_allclose(value, student_temperature**2 * np.mean(divergences), rtol=1e-12)
    np.testing.assert_allclose(metrics["agreement"], np.mean(agree))


@pytest.mark.slow
def test_the_divergence_has_a_finite_gradient_and_none_at_negatives_that_are_not_there():
    pairs = batch()

    def value(negatives):
        hard = PairEmbeddings(pairs.query, pairs.target, negatives, pairs.negatives_mask, scores=pairs.scores)
        return CandidateKL()(hard)[0]

    gradient = np.asarray(jax.grad(value)(pairs.negatives))
    assert np.isfinite(gradient).all() and (gradient[~pairs.negatives_mask] == 0).all()
    assert (gradient[pairs.negatives_mask] != 0).any(-1).all()


def taught(teacher_size=6, masked=True) -> PairEmbeddings:
    pairs, random = batch(masked), np.random.default_rng(1)
    sizes = {"query": (7,), "target": (7,), "negatives": (7, 3)}
    return dataclasses.replace(
        pairs, **{f"teacher_{tower}": random.normal(size=(*shape, teacher_size)) for tower, shape in sizes.items()}
    )


DISTANCES = {
    "l2": lambda x, y: np.linalg.norm(x - y),
    "mse": lambda x, y: np.mean((x - y) ** 2),
    "cosine": lambda x, y: 1 - x @ y,
}


def unit(x):
    return x / np.linalg.norm(x)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("towers", "teacher_size"), [(("query", "target", "negatives"), 6), (("query",), 4)])
def test_embeddings_are_compared_with_the_prefix_of_the_teachers(distance, towers, teacher_size):
    pairs, expected = taught(teacher_size), {}
    for tower in towers:
        student, teacher = getattr(pairs, tower), getattr(pairs, f"teacher_{tower}")
        rows = [i for i in np.ndindex(student.shape[:-1]) if tower != "negatives" or pairs.negatives_mask[i]]
        expected[tower] = np.mean([DISTANCES[distance](student[i], unit(teacher[i][:4])) for i in rows])
    with jax.enable_x64(True):
        value, metrics = EmbeddingDistillation(distance, towers)(pairs)
    np.testing.assert_allclose(value, sum(expected.values()), rtol=1e-12)
    assert set(metrics) == set(towers)
    np.testing.assert_allclose([metrics[t] for t in towers], [expected[t] for t in towers], rtol=1e-12)


def test_a_batch_without_negatives_has_no_distance_there():
    pairs = dataclasses.replace(taught(), negatives=None, negatives_mask=None, teacher_negatives=None)
    value, metrics = EmbeddingDistillation()(pairs)
    two, _ = EmbeddingDistillation(towers=("query", "target"))(pairs)
    assert float(value) == pytest.approx(float(two), rel=1e-6) and float(metrics["negatives"]) == 0.0


def test_a_projection_maps_to_the_whole_teacher_and_is_learned():
    loss, pairs = EmbeddingDistillation("l2", ("query",), (4, 6)), taught()
    with jax.enable_x64(True):
        params = loss.init()
        value, gradient = jax.value_and_grad(lambda p: loss(pairs, p)[0])(params)
        matrix = np.asarray(params["projection"], np.float64)
    distances = [np.linalg.norm(unit(x @ matrix) - unit(y)) for x, y in zip(pairs.query, pairs.teacher_query)]
    np.testing.assert_allclose(value, np.mean(distances), rtol=1e-12)
    assert matrix.shape == (4, 6) and (np.asarray(gradient["projection"]) != 0).all()
    assert EmbeddingDistillation().init() == {}


def test_the_intermediate_embedding_is_compared_with_the_whole_teacher():
    """The final one has no part in it, and a batch without negatives none there."""
    pairs, random = taught(6), np.random.default_rng(2)
    wide = {f"{t}_intermediate": random.normal(size=(*getattr(pairs, t).shape[:-1], 6)) for t in pairs_of(pairs)}
    pairs, loss = dataclasses.replace(pairs, **wide), EmbeddingDistillation("mse", student="intermediate")
    expected = {}
    for tower in pairs_of(pairs):
        student, teacher = wide[f"{tower}_intermediate"], getattr(pairs, f"teacher_{tower}")
        rows = [i for i in np.ndindex(student.shape[:-1]) if tower != "negatives" or pairs.negatives_mask[i]]
        expected[tower] = np.mean([DISTANCES["mse"](unit(student[i]), unit(teacher[i])) for i in rows])
    with jax.enable_x64(True):
        value, metrics = loss(pairs)
        gradient = jax.grad(lambda query: loss(dataclasses.replace(pairs, query=query))[0])(pairs.query)
    np.testing.assert_allclose(value, sum(expected.values()), rtol=1e-12)
    assert set(metrics) == set(expected) and not np.asarray(gradient).any()
    none = {"negatives": None, "negatives_mask": None, "negatives_intermediate": None, "teacher_negatives": None}
    assert float(loss(dataclasses.replace(pairs, **none))[1]["negatives"]) == 0.0
    assert set(loss.needs) == {f"teacher_{t}" for t in pairs_of(pairs)} | set(wide)


def pairs_of(pairs) -> list[str]:
    return [tower for tower in ("query", "target", "negatives") if getattr(pairs, tower) is not None]


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_student_that_equals_its_teacher_has_no_loss_and_a_finite_gradient(distance):
    pairs = batch()

    def value(query):
        return EmbeddingDistillation(distance, ("query",))(
            PairEmbeddings(query, pairs.target, teacher_query=pairs.query)
        )[0]

    with jax.enable_x64(True):
        loss, gradient = map(np.asarray, jax.value_and_grad(value)(pairs.query))
    assert abs(loss) < 1e-7 and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("loss", "changes", "message"),
    [
        (EmbeddingDistillation(), {"teacher_target": None}, "vectors of 'target'; bind Recipe.teacher_vectors"),
        (EmbeddingDistillation(projection=(4, 8)), {}, r"vectors 6: give \(4, 6\)"),
        (
            EmbeddingDistillation(student="intermediate"),
            {},
            "needs 'query_intermediate'; take the objective objectives.pairs.Pairs",
        ),
        (
            EmbeddingDistillation(),
            {
                "teacher_query": np.ones((7, 3)),
                "teacher_target": np.ones((7, 3)),
                "teacher_negatives": np.ones((7, 3, 3)),
            },
            r"has 4 values and the teacher's vectors 3; give EmbeddingDistillation.projection = \(4, 3\)",
        ),
    ],
)
def test_teachers_that_do_not_fit_are_refused(loss, changes, message):
    with pytest.raises(ConfigError, match=message):
        loss(dataclasses.replace(taught(), **changes), loss.init())


@pytest.mark.parametrize("towers", [(), ("query", "query")])
def test_towers_are_named_once(towers):
    with pytest.raises(ConfigError, match="each at most once"):
        EmbeddingDistillation(towers=towers)
