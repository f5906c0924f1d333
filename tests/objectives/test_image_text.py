"""TIPS' objective: its terms by hand, gradients by micro-batches, meshes, what moves, its switches, and what is refused."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from image_text_parts import CROPS, HEAD, LOCAL, PATCHES, batch, tower, whole_objective
from training_batches import fast, only

from embed import sharding
from embed.errors import ConfigError
from embed.losses.self_distillation import Temperatures
from embed.models import heads
from embed.training.optimizers import adamw
from embed.training.state import create, layout
from embed.training.step import loss_and_gradient, make_step
from embed.trees import flatten
from embed.types import Batch

KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def variables():
    """Variables whose teacher and centres are no longer at their start."""
    first = fast(lambda: whole_objective().init(jax.random.key(0)))()
    random = np.random.default_rng(3)
    moving = jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape).astype(np.float32), first.moving)
    return dataclasses.replace(first, moving=moving)


def cross_entropy(student, teacher, own, taught, centre, step=0):
    """Returns the cross-entropy of each item, in float64, from features and prototypes."""
    t = whole_objective().temperatures
    p = np.exp((np.float64(teacher) @ np.float64(taught) - centre) / float(t.teacher_at(step)))
    q = np.exp(np.float64(student) @ np.float64(own) / t.student)
    return -np.sum(p / p.sum(-1, keepdims=True) * np.log(q / q.sum(-1, keepdims=True)), -1)


@pytest.mark.slow
def test_the_terms_are_those_of_their_equations(variables):
    one = only(batch())
    outputs = fast(lambda v, b: whole_objective().forward(v, b, None, 0))(variables, one)
    value, metrics = fast(lambda v, o, b: whole_objective().loss(v.params, o, b, 0))(variables, outputs, one)
    model, params = whole_objective().model, variables.params["model"]
    taught = {**params, "image": variables.moving["teacher"]["model"]}
    tokens = fast(lambda p, x: model.apply(p, {"pixels": x}, method="image_tokens"))
    of_class, _ = tokens(params, one["image_global"])
    teacher_class, teacher_patches = tokens(taught, one["image_global"])
    texts = {n: np.float64(outputs.rows[n]) for n in ("caption", "synthetic_caption")}
    contrastive = 0.0
    for index, name in enumerate(texts):
        image = np.float64(of_class[:, index])
        logits = image / np.linalg.norm(image, axis=-1, keepdims=True) @ texts[name].T / 0.2
        ids = np.asarray(one[f"{name}_id"])
        same = np.all(ids[:, None] == ids[None], -1) & ~np.eye(8, dtype=bool)
        logits = np.where(same, -np.inf, logits)
        both = [np.log(np.exp(logits).sum(axis)) - np.diag(logits) for axis in (0, 1)]
        assert float(metrics[name]) == pytest.approx(np.mean(both), rel=1e-5)
        contrastive += np.mean(both) / 2
    head, moved, centres = variables.params["heads"], variables.moving["teacher"]["heads"], variables.moving["centres"]
    features = lambda p, x: np.asarray(HEAD.apply({"params": p}, x))  # noqa: E731
    crops = one["image_local"].reshape(-1, LOCAL, LOCAL, 3)
    student = features(head["class"], tokens(params, crops)[0][:, 0]).reshape(8, CROPS, -1)
    teacher = features(moved["class"], teacher_class[:, 0])
    prototypes = lambda p: np.asarray(heads.prototypes(p))  # noqa: E731
    distilled = np.mean(
        [
            cross_entropy(
                student[:, m], teacher, prototypes(head["class"]), prototypes(moved["class"]), centres["class"]
            )
            for m in range(CROPS)
        ]
    )
    assert float(metrics["self_distillation"]) == pytest.approx(distilled, rel=1e-5)
    mask = np.asarray(one["image_mask"])
    masked = model.apply(params, {"pixels": one["image_global"], "patch_mask": mask}, method="masked_image_tokens")[1]
    of_patches = cross_entropy(
        features(head["patch"], masked),
        features(moved["patch"], teacher_patches),
        prototypes(head["patch"]),
        prototypes(moved["patch"]),
        centres["patch"],
    )
    assert float(metrics["masked_modelling"]) == pytest.approx(of_patches[mask].mean(), rel=1e-5)
    assert float(value) == pytest.approx(contrastive + distilled + 2 * of_patches[mask].mean(), rel=1e-5)
    every = dataclasses.replace(whole_objective(), all_patches=True)
    metrics = fast(lambda v, b: every.loss(v.params, every.forward(v, b, None, 0), b, 0))(variables, one)[1]
    assert float(metrics["masked_modelling"]) == pytest.approx(of_patches.mean(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 8])
def test_the_gradient_by_micro_batches_is_that_of_the_whole_batch(variables, parts):
    """To 1e-6 of its norm; nothing is drawn, as the keys of micro-batches differ."""
    compute = fast(lambda v, b: loss_and_gradient(whole_objective(), v, b, KEY, 0))
    whole, cut = (compute(variables, batch(parts=n)) for n in (1, parts))
    assert float(cut[0]) == pytest.approx(float(whole[0]), rel=1e-6)
    apart, norm = 0.0, 0.0
    for path, x in flatten(whole[2]).items():
        assert np.any(x), path
        apart += np.sum((np.float64(flatten(cut[2])[path]) - np.float64(x)) ** 2)
        norm += np.sum(np.float64(x) ** 2)
    assert math.sqrt(apart / norm) <= 1e-6
    for path, x in flatten(whole[3].sums).items():
        np.testing.assert_allclose(flatten(cut[3].sums)[path], x, rtol=1e-5, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_the_teacher_moves_by_its_momentum_and_so_do_the_centres(variables):
    one = only(batch())
    outputs = fast(lambda v, b: whole_objective().forward(v, b, None, 0))(variables, one)
    moved = whole_objective().update(variables, outputs, 0)
    taught = {"model": variables.params["model"]["image"], "heads": variables.params["heads"]}
    for path, x in flatten(moved["teacher"]).items():
        before = flatten(variables.moving["teacher"])[path]
        np.testing.assert_allclose(x, 0.994 * before + 0.006 * flatten(taught)[path], rtol=1e-5, atol=1e-6)
    sums = outputs.sums["patch"]
    mean = np.asarray(sums["logits"]) / (8 * PATCHES)
    np.testing.assert_allclose(
        moved["centres"]["patch"], 0.9 * variables.moving["centres"]["patch"] + 0.1 * mean, rtol=1e-5
    )


@pytest.mark.slow
def test_a_teacher_of_averaged_heads_has_the_students_tokens():
    objective = dataclasses.replace(whole_objective(), teacher="ema_heads")
    variables = fast(lambda: objective.init(jax.random.key(0)))()
    assert set(variables.moving["teacher"]) == {"heads"}
    one = only(batch())
    sums = fast(lambda v, b: objective.forward(v, b, None, 0))(variables, one).sums
    # At the start the teacher is the student: both objectives give the same.
    first = fast(lambda: whole_objective().init(jax.random.key(0)))()
    expected = fast(lambda v, b: whole_objective().forward(v, b, None, 0))(first, one).sums
    for path, x in flatten(expected).items():
        np.testing.assert_allclose(flatten(sums)[path], x, rtol=1e-4, err_msg=path)


@pytest.mark.slow
def test_terms_of_weight_zero_have_no_parameters_and_need_no_crops():
    objective = dataclasses.replace(whole_objective(), self_distillation=0.0, masked_modelling=0.0, model=tower())
    variables = fast(lambda: objective.init(jax.random.key(0)))()
    assert variables.params["heads"] == {} and flatten(variables.moving) == {}
    one = only(batch())
    few = Batch({n: x for n, x in one.items() if n not in ("image_local", "image_mask")}, one.max_segments)
    outputs = fast(lambda v, b: objective.forward(v, b, None, 0))(variables, few)
    assert outputs.sums == {} and set(outputs.rows) == {
        "caption",
        "synthetic_caption",
        "image/caption",
        "image/synthetic_caption",
    }
    assert set(objective.loss(variables.params, outputs, few, 0)[1]) >= {"caption", "synthetic_caption/temperature"}


@pytest.mark.slow
@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.long), 8])
def test_every_mesh_trains_alike(size):
    def train(size):
        shape = {1: (1, 1, 1), 2: (2, 1, 1), 4: (2, 2, 1), 8: (2, 2, 2)}[size]
        mesh = sharding.make_mesh(sharding.MeshShape(*shape), jax.devices()[: math.prod(shape)])
        shards = sharding.batch_shards(mesh)
        optimizer = adamw(0.01)
        with jax.set_mesh(mesh):
            placed = layout(whole_objective(), jax.eval_shape(lambda: create(whole_objective(), optimizer, 0)), mesh)
            state = jax.device_put(fast(lambda: create(whole_objective(), optimizer, 0))(), placed)
            step = fast(
                make_step(whole_objective(), optimizer, seed=0), out_shardings=(placed, sharding.replicated(mesh))
            )
            losses = []
            for t in range(3):
                b = sharding.to_global(batch(t, 8, shards, 2), mesh, shards)
                state, metrics = jax.block_until_ready(step(state, b))
                losses.append(float(metrics["loss"]))
            return losses, jax.device_get(state.variables.moving["centres"])

    (losses, centres), (expected, expected_centres) = train(size), train(1)
    np.testing.assert_allclose(losses, expected, rtol=2e-5)
    for name, x in expected_centres.items():
        np.testing.assert_allclose(centres[name], x, rtol=1e-3, atol=1e-5)
        assert np.any(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"captions": {}}, "ImageText.captions is empty; name the text features"),
        ({"model": tower()}, "needs a model with the method 'masked_image_tokens'; bind Recipe.model to a DualEncoder"),
        ({"momentum": 1.5}, "ImageText.momentum = 1.5"),
        (
            {"captions": {"caption": 2}},
            "'caption' is compared with class token 2, and the image tower has 2, counted from 0",
        ),
        ({"teacher": "mean"}, "ImageText.teacher = 'mean'"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(whole_objective(), **changes)


@pytest.mark.slow
def test_the_teacher_sharpens_by_its_schedule(variables):
    one = only(batch())
    warm = dataclasses.replace(whole_objective(), temperatures=Temperatures(warmup_steps=10))
    entropies = [
        float(
            fast(lambda v, b, s=s: warm.loss(v.params, warm.forward(v, b, None, s), b, s))(variables, one)[1][
                "self_distillation/entropy"
            ]
        )
        for s in (0, 10)
    ]
    assert entropies[0] < entropies[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("renamed", "message"),
    [
        ({"image_global": None}, "ImageText reads 'image_global', which no feature gives; put @image_features.Views"),
        (
            {"image_local": None},
            "ImageText reads 'image_local', .* with local crops where self_distillation is above 0",
        ),
        ({"image_mask": None}, "ImageText reads 'image_mask'"),
        (
            {"caption_index": "title_index"},
            r"names \['caption', 'synthetic_caption'\], and the text features are \['synthetic",
        ),
        ({"caption_index": None}, r"the text features are \['synthetic_caption'\]; make them the same"),
    ],
)
def test_a_batch_of_other_features_is_one_line(variables, renamed, message):
    one = only(batch())
    arrays = {renamed.get(name, name): x for name, x in one.items() if renamed.get(name, name) is not None}
    with pytest.raises(ConfigError, match=message):
        whole_objective().forward(variables, Batch(arrays, one.max_segments), None, 0)


@pytest.mark.parametrize(
    ("entropy", "below", "advice"),
    [
        (0.0, 1.0, "assigns everything to one prototype; raise Temperatures.teacher"),
        (math.log(11), 0.0, "nothing is told apart; lower Temperatures.teacher"),
        (math.log(11), 0.5, None),
        (1.2, 0.0, None),
    ],
)
def test_a_collapsed_teacher_is_warned_of(entropy, below, advice):
    sound = {"entropy": 1.2, "below_uniform": 0.4}
    for name in ("self_distillation", "masked_modelling"):
        values = {f"{term}/{k}": v for term in ("self_distillation", "masked_modelling") for k, v in sound.items()}
        values |= {f"{name}/entropy": entropy, f"{name}/below_uniform": below}
        assert whole_objective().watch(values, whole_objective().watch_from - 1) is None
        warning = whole_objective().watch(values, whole_objective().watch_from)
        assert (warning is None) == (advice is None)
        assert advice is None or (advice in warning and name in warning)
    only_captions = dataclasses.replace(whole_objective(), self_distillation=0.0, masked_modelling=0.0)
    assert only_captions.watch({}, 1000) is None
