"""The plan of a recipe, in this process: as few micro-batches as the memory of its devices takes, parameters as they are used."""

import dataclasses

import jax
import optax
import pytest
from tiny_models import small_module
from training_batches import bag_of_words

from embed import sharding, trees
from embed.compilation import forecast
from embed.data import tasks
from embed.data.image_features import Classes, Image
from embed.data.text_features import Lengths, pairs
from embed.errors import ConfigError
from embed.losses.classes import ByClass
from embed.losses.contrastive import Contrastive
from embed.models import api
from embed.models.dual_encoder import ImageEmbedder
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.models.vit import VisionTransformer
from embed.objectives.images import Classified
from embed.objectives.pairs import Pairs
from embed.workflows import compile, recipe_steps

FEATURES = pairs(Lengths(32, 32))


def model(dtype: str):
    sizes = {"vocab_size": 300, "width": 32, "num_layers": 2, "num_heads": 2, "head_dim": 16, "mlp_dim": 32}
    return api.build(Embedder(Gemma(**sizes, dtype=dtype), MeanPooling(), (), (32,)))


@pytest.fixture(scope="module")
def plan():
    return recipe_steps.Plan(
        model=model("bfloat16"),
        objective=Pairs(Contrastive(), model("bfloat16")),
        optimizer=optax.sgd(0.1),
        caches=(recipe_steps.FullCache("made_up", FEATURES),),
        mixture=tasks.Mixture(name="made_up", tasks=[tasks.Task(name="made_up", source=None)]),
        batch_size=64,
        features=FEATURES,
        max_length=32,
    )


def mesh():
    return sharding.make_mesh(devices=jax.devices()[:1])


@pytest.mark.slow
def test_a_step_is_cut_until_the_memory_takes_it(plan, monkeypatch):
    plan = dataclasses.replace(plan, model=bag_of_words(), objective=Pairs(Contrastive(), bag_of_words()))
    whole = plan.train(mesh())
    assert whole.micro_batches == 1
    room = whole.lasting + 0.6 * whole.temporary
    monkeypatch.setattr(forecast, "memory_of", lambda mesh: room / sharding.OF_DEVICE)
    cut = plan.train(mesh())
    assert cut.micro_batches > 1 and cut.memory <= room < whole.memory
    monkeypatch.setattr(forecast, "memory_of", lambda mesh: 1000.0)
    assert "smaller batch" in plan.train(mesh()).refused


@pytest.mark.slow
def test_what_does_not_fit_ends_the_command(recipe_of, monkeypatch, capsys):
    monkeypatch.setattr(forecast, "memory_of", lambda mesh: 1000.0)
    module = small_module(64)
    recipe = recipe_of(optimizer=optax.sgd(0.1), model=module.clone(encoder=module.encoder.clone(num_layers=1)))
    with pytest.raises(ConfigError, match="^does not fit: train on here; see --advise"):
        compile.run(recipe, steps=["train"])
    assert "recipe     recipe: 4,192 parameters, 8 examples a batch" in capsys.readouterr().out


@pytest.mark.slow
def test_kernels_are_encoded_with_in_the_dtype_of_computation(plan):
    half, full = (
        dataclasses.replace(plan, model=model(dtype)).encode(jax.devices()[:1]) for dtype in ("bfloat16", "float32")
    )
    shapes = trees.flatten(jax.eval_shape(plan.model.init, jax.random.key(0)))
    kernels = sum(x.size for path, x in shapes.items() if path.endswith("kernel"))
    assert full.lasting - half.lasting == pytest.approx(2 * kernels, rel=0.02)


@pytest.mark.slow
def test_a_model_of_images_alone_has_its_steps(tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    module = ImageEmbedder(VisionTransformer(4, 16, 1, 2, 24, num_class_tokens=1, position_grid=2), image_size=8)
    images = api.build(module)
    features = (Image(size=8), Classes("label", str(tmp_path / "classes.txt")))
    plan = recipe_steps.Plan(
        model=images,
        objective=Classified(loss_fn=ByClass(num_classes=3, embedding_dim=16), model=images),
        optimizer=optax.sgd(0.1),
        caches=(recipe_steps.FullCache("made_up", features),),
        mixture=tasks.Mixture(name="made_up", tasks=[tasks.Task(name="made_up", source=None)]),
        batch_size=4,
        features=features,
        max_length=0,
    )
    flops = images.methods["image"].flops(8, 8)
    assert plan.train(mesh()).model_flops == 3 * 4 * flops
    for step in (plan.evaluate(mesh()), plan.encode(jax.devices()[:1])):
        assert step.model_flops % flops == 0 and step.model_flops > 0
