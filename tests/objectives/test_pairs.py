"""The objective of pairs: what it passes to the loss, and a temperature that is learned."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_batches import bag_of_words, batch, fast, only

from embed.errors import ConfigError
from embed.losses.contrastive import Contrastive
from embed.losses.distillation import EmbeddingDistillation
from embed.losses.matryoshka import Matryoshka
from embed.losses.total import Total
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.objectives.pairs import Pairs
from embed.training.state import create
from embed.training.step import loss_and_gradient, make_step
from embed.types import Outputs


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A loss that keeps what it was given."""

    given: list

    def init(self):
        return {"scale": jnp.float32(3.0)}

    def __call__(self, pairs, params=None, step=0):
        self.given.append((pairs, params, step))
        return params["scale"] * jnp.sum(pairs.query), {}


def test_the_loss_is_given_embeddings_ids_and_its_own_parameters():
    given = []
    objective, part = Pairs(Recorded(given), bag_of_words()), only(batch())
    variables = objective.init(jax.random.key(0))
    outputs = objective.forward(variables, part, jax.random.key(1), 0)
    assert isinstance(outputs, Outputs) and not jax.tree.leaves(outputs.sums)
    value, _ = objective.loss(variables.params, outputs, part, 7)
    pairs, params, step = given[0]
    assert step == 7
    assert float(value) == pytest.approx(3.0 * float(jnp.sum(outputs.rows["query"])))
    assert params == {"scale": 3.0}
    for name in ("query_id", "target_id", "negatives_id", "negatives_mask"):
        np.testing.assert_array_equal(getattr(pairs, name), part[name])
    for name in ("query", "target", "negatives"):
        assert getattr(pairs, name) is outputs.rows[name]
    assert objective.export(variables) is variables.params["model"]


@pytest.mark.slow
def test_intermediate_embeddings_are_computed_where_a_loss_needs_them_alone():
    encoder = Gemma(48, 16, 1, num_heads=4, num_kv_heads=2, head_dim=4, mlp_dim=24, window=4, global_every=2)
    model, part = api.build(Embedder(encoder, MeanPooling(), (10, 6))), only(batch(vocab=48))
    shared = EmbeddingDistillation(towers=("query",), student="intermediate")
    for loss, names in (
        (Contrastive(), set()),
        (Total({"a": Contrastive(), "b": shared}), {"query", "target", "negatives"}),
    ):
        objective = Pairs(loss, model)
        variables = jax.eval_shape(objective.init, jax.random.key(0))
        outputs = jax.eval_shape(lambda v, o=objective: o.forward(v, part, None, 0), variables)
        assert outputs.rows.keys() == {"query", "target", "negatives", *(f"{name}_intermediate" for name in names)}
        assert not names or outputs.rows["negatives_intermediate"].shape == (8, 2, 10)


def test_a_model_without_an_intermediate_embedding_is_refused_before_the_run():
    loss = Total({"d": EmbeddingDistillation(student="intermediate")})
    with pytest.raises(
        ConfigError, match=r"Embedder.projection two sizes, such as \(3072, 768\), or .*student = 'final'"
    ):
        Pairs(loss, bag_of_words())


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 4])
def test_a_learned_temperature_has_the_gradient_of_finite_differences(micro_batches):
    loss = Matryoshka(Contrastive(0.3, 5.0, learn_temperature=True), (6, 3))
    objective, b = Pairs(loss, bag_of_words()), batch(parts=micro_batches)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda x: x.astype(jnp.float64), objective.init(jax.random.key(0)))

        @jax.jit
        def at(log_temperature):
            params = {**variables.params, "loss": {"log_temperature": log_temperature}}
            return loss_and_gradient(objective, dataclasses.replace(variables, params=params), b, jax.random.key(0), 0)

        middle = variables.params["loss"]["log_temperature"]
        slope = (float(at(middle + 1e-5)[0]) - float(at(middle - 1e-5)[0])) / 2e-5
        assert float(at(middle)[2]["loss"]["log_temperature"]) == pytest.approx(slope, rel=1e-7)
        assert float(at(middle)[1]["temperature"]) == pytest.approx(0.3, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("low", "high", "start"), [(0.01, 1.0, 0.9), (0.25, 0.4, 0.3), (0.28, 0.3, 0.3)])
def test_a_learned_temperature_moves_and_stays_within_its_bounds(low, high, start):
    loss = Contrastive(start, learn_temperature=True, min_temperature=low, max_temperature=high)
    objective, optimizer = Pairs(loss, bag_of_words()), optax.adam(0.05)
    state, step, seen = create(objective, optimizer, 0), None, []
    step = fast(make_step(objective, optimizer, seed=0))
    for t in range(60):
        state, metrics = step(state, batch(t % 3))
        seen.append(float(metrics["temperature"]))
    assert low * (1 - 1e-6) <= min(seen) and max(seen) <= high * (1 + 1e-6)
    assert min(seen) < start * 0.95
    # The parameter itself goes no further than steps that were under way carry it: no gradient leads out of the range.
    assert float(state.variables.params["loss"]["log_temperature"]) > math.log(low) - 0.5


@pytest.mark.slow
def test_a_fixed_temperature_adds_no_parameter_and_no_metric():
    objective = Pairs(Contrastive(0.3), bag_of_words())
    variables = objective.init(jax.random.key(0))
    assert variables.params["loss"] == {}
    _, metrics, *_ = loss_and_gradient(objective, variables, batch(), jax.random.key(0), 0)
    assert "temperature" not in metrics
