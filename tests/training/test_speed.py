"""Guards of speed that no clock is needed for: types of products, and FLOPs that are run for those a model needs."""

import re

import jax
import numpy as np
import optax
import pytest

from embed import sharding
from embed.data import tasks
from embed.data.text_features import Lengths, pairs
from embed.losses.contrastive import Contrastive
from embed.losses.matryoshka import Matryoshka
from embed.models import api
from embed.models.bert import Bert
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import AttentionPooling, MeanPooling
from embed.objectives.pairs import Pairs
from embed.workflows import recipe_steps

ENCODERS = {
    "bert": Bert(vocab_size=300, width=64, num_layers=2, num_heads=4, mlp_dim=96, dtype="bfloat16"),
    "gemma": Gemma(
        vocab_size=300, width=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, mlp_dim=96, window=16, dtype="bfloat16"
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pooling", [MeanPooling(), AttentionPooling(4)], ids=["mean", "attention"])
@pytest.mark.parametrize("name", ENCODERS)
def test_products_of_bfloat16_leave_their_float32_sum_in_both_passes(name, pooling):
    """A bfloat16 result, or a float32 operand beside a bfloat16 one, is 4 to 6 times slower on CPU."""
    model = api.build(Embedder(ENCODERS[name], pooling, (32,), (32,)))
    params = jax.eval_shape(model.init, jax.random.key(0))
    rows = jax.ShapeDtypeStruct((4, 64), np.int32)

    def total(params, tokens, segment_ids):
        return model.apply(params, {"tokens": tokens, "segment_ids": segment_ids}, max_segments=4).sum()

    text = jax.jit(jax.grad(total)).lower(params, rows, rows).as_text()
    products = re.findall(r"stablehlo\.dot_general .*?: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>", text)
    types = [tuple(t.rpartition("x")[2] for t in product) for product in products]
    # A block's six or seven kernels and the two products of attention, forward and for either operand.
    assert types.count(("bf16", "bf16", "f32")) == 3 * {"bert": 8, "gemma": 9}[name]
    assert set(types) <= {("bf16", "bf16", "f32"), ("f32", "f32", "f32")}


@pytest.mark.slow
@pytest.mark.parametrize(("remat", "most"), [("none", 1.10), ("full", 1.45)])
def test_little_is_run_that_the_model_does_not_need(remat, most):
    encoder = Gemma(
        vocab_size=500, width=256, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=64, mlp_dim=512, remat=remat
    )
    model, features = api.build(Embedder(encoder, MeanPooling(), (256,), (256, 128))), pairs(Lengths(64, 64))
    plan = recipe_steps.Plan(
        model=model,
        objective=Pairs(Matryoshka(Contrastive(), (256, 128)), model),
        optimizer=optax.adamw(1e-3),
        caches=(recipe_steps.FullCache("made_up", features),),
        mixture=tasks.Mixture(name="made_up", tasks=[tasks.Task(name="made_up", source=None)]),
        batch_size=64,
        features=features,
        max_length=64,
    )
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    step = plan.train(mesh, micro_batches=1)
    assert 1.0 <= step.executed <= most and step.work.unknown_loops == 0
    if remat == "none":
        assert plan.encode(jax.devices()[:1]).executed <= most
