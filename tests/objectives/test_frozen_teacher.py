"""A frozen teacher: its tower and heads are those of a run, its terms those of the same model as an average, and what it lacks."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from image_text_parts import HEAD, batch, tower
from image_text_parts import whole_objective as with_average
from training_batches import fast, only

from embed import checkpoints, sharding, trees
from embed.errors import ConfigError, DataError
from embed.models import api
from embed.models.dual_encoder import ImageEmbedder
from embed.models.vit import VisionTransformer
from embed.objectives.frozen_teacher import FrozenTeacher
from embed.objectives.image_text import ImageText
from embed.objectives.moving_average import MovingAverage
from embed.training.state import frozen_reader

TOWER = ImageEmbedder(VisionTransformer(2, 8, 1, 2, 12, position_grid=3, mask_token=True), image_size=6)


def moved(objective=None):
    objective = objective or with_average()
    first = fast(lambda: objective.init(jax.random.key(0)))()
    random = np.random.default_rng(3)
    moving = jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape).astype(np.float32), first.moving)
    return dataclasses.replace(first, moving=moving)


def saved(folder, variables, step=4):
    """Writes the checkpoint of a run of image_text and returns its folder."""
    saver = checkpoints.Saver(folder / "checkpoints")
    contents = {"model.json": b'{"format": 1}'}
    saver.save(step, {"params": variables.params["model"], "moving": variables.moving}, contents)
    saver.close()
    return folder / "checkpoints" / str(step)


@pytest.fixture
def run(tmp_path):
    return saved(tmp_path / "run", moved())


def target(objective):
    shapes = jax.eval_shape(lambda: objective.init(jax.random.key(0)).frozen)
    mesh = sharding.make_mesh(sharding.MeshShape(), jax.devices()[:1])
    placed = sharding.replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), shapes)


def taught(run, **fields):
    return dataclasses.replace(with_average(), teacher=FrozenTeacher(str(run), TOWER), **fields)


@pytest.mark.slow
def test_tower_and_heads_are_those_of_the_run(run):
    objective, variables = taught(run), moved()
    read = objective.read_frozen(target(objective))
    expected = trees.flatten(variables.moving["teacher"])
    actual = trees.flatten(read["teacher"])
    assert set(actual) == set(expected)
    for path, array in expected.items():
        np.testing.assert_array_equal(actual[path], array, err_msg=path)
    wrapped = MovingAverage(objective, 0.9)
    assert frozen_reader(wrapped) == objective.read_frozen and frozen_reader(types.SimpleNamespace()) is None
    assert set(objective.identity()) == {"teacher"} and with_average().identity() == {}


@pytest.mark.slow
def test_the_terms_are_those_of_the_same_teacher_as_an_average(run):
    """The student is masked or not, the teacher sees the same."""
    objective, variables = taught(run), moved()
    frozen = objective.read_frozen(target(objective))
    given = dataclasses.replace(variables, moving={"centres": variables.moving["centres"]}, frozen=frozen)
    one = only(batch())
    ours = fast(lambda v, b: objective.forward(v, b, None, 0))(given, one)
    theirs = fast(lambda v, b: with_average().forward(v, b, None, 0))(variables, one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)
    after = objective.update(given, ours, 0)
    assert set(after) == {"centres"}
    np.testing.assert_allclose(
        after["centres"]["class"], with_average().update(variables, theirs, 0)["centres"]["class"], rtol=1e-6
    )


@pytest.mark.long
@pytest.mark.slow
def test_a_student_without_masks_has_one_pass_and_all_patches(run):
    """The patches that the teacher's are compared with are those of the pass that captions are compared with."""
    objective = taught(run, mask_student=False, all_patches=True, model=tower())
    assert "masked_image_tokens" not in objective.model.methods
    variables = fast(lambda: objective.init(jax.random.key(0)))()
    frozen = objective.read_frozen(target(objective))
    one = {name: x for name, x in only(batch()).arrays.items() if name != "image_mask"}
    outputs = fast(lambda v, b: objective.forward(v, b, None, 0))(
        dataclasses.replace(variables, frozen=frozen), dataclasses.replace(only(batch()), arrays=one)
    )
    np.testing.assert_allclose(outputs.sums["patch"]["count"], 8 * 9)


@pytest.mark.slow
def test_where_the_tower_was_not_averaged_it_is_that_of_the_run(tmp_path):
    heads_only = dataclasses.replace(with_average(), teacher="ema_heads")
    variables = moved(heads_only)
    objective = taught(saved(tmp_path / "run", variables))
    read = objective.read_frozen(target(objective))["teacher"]
    assert trees.flatten(read["heads"])
    for path, array in trees.flatten(variables.params["model"]["image"]).items():
        np.testing.assert_array_equal(trees.flatten(read["model"])[path], array, err_msg=path)


@pytest.mark.slow
def test_another_tower_or_other_heads_are_refused(run):
    wide = ImageEmbedder(VisionTransformer(2, 16, 1, 2, 12, position_grid=3, mask_token=True), image_size=6)
    for objective in (
        dataclasses.replace(with_average(), teacher=FrozenTeacher(str(run), wide)),
        taught(run, class_head=dataclasses.replace(HEAD, num_prototypes=7)),
    ):
        with pytest.raises(
            ConfigError, match="FrozenTeacher.tower and the heads must be those of the run: .* does not match"
        ):
            objective.read_frozen(target(objective))


@pytest.mark.slow
def test_what_has_no_heads_is_refused(tmp_path):
    variables = moved()
    bundle = checkpoints.write_bundle(tmp_path / "b", variables.params["model"], {"model.json": b'{"format": 1}'})
    with pytest.raises(
        DataError, match="holds no heads of self-distillation.*; give FrozenTeacher.run the folder of a run"
    ):
        taught(bundle).identity()


@pytest.mark.slow
def test_settings_that_do_not_go_together_are_refused():
    teacher = FrozenTeacher("nowhere", TOWER)
    with pytest.raises(ConfigError, match="mask_student = False needs a FrozenTeacher"):
        dataclasses.replace(with_average(), mask_student=False)
    with pytest.raises(ConfigError, match="leaves no masked patch to count; set all_patches = True"):
        dataclasses.replace(with_average(), mask_student=False, teacher=teacher)
    with pytest.raises(ConfigError, match="have no effect where self_distillation and masked_modelling are 0"):
        dataclasses.replace(with_average(), self_distillation=0.0, masked_modelling=0.0, teacher=teacher)
    coarse = FrozenTeacher("nowhere", TOWER.clone(encoder=TOWER.encoder.clone(patch_size=3)))
    with pytest.raises(ConfigError, match="ImageText.teacher has patches of 3 pixels, and the student of 2"):
        dataclasses.replace(with_average(), teacher=coarse)
    with pytest.raises(ConfigError, match="teacher"):
        ImageText(with_average().loss_fn, teacher="average")
    assert api.build(TOWER).methods
