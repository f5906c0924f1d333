"""The StableHLO program of a model: jax alone gives the same vectors with it, for every family."""

import json

import jax
import numpy as np
import pytest

from embed import trees
from embed.interop import origin, parity, stablehlo
from embed.models import api


@pytest.mark.slow
def test_the_program_runs_with_jax_alone(program):
    checks, _ = parity.read(program)
    loaded = jax.export.deserialize(bytearray((program / "model.stablehlo").read_bytes()))
    assert set(loaded.platforms) == {"cpu", "cuda", "tpu"}
    with np.load(program / "parameters.npz", allow_pickle=False) as stored:
        parameters = {name: stored[name] for name in stored.files}
    call = jax.jit(loaded.call)
    rows = [c for c in checks if len(c.token_ids) < 48][:6]
    tokens, mask = np.full((6, 48), 77, np.int32), np.zeros((6, 48), bool)
    for i, check in enumerate(rows):
        tokens[i, : len(check.token_ids)], mask[i, : len(check.token_ids)] = check.token_ids, True
    found = np.asarray(call(parameters, tokens, mask))
    assert found.shape == (6, 10) and found.dtype == np.float32
    assert np.max(np.abs(found - np.array([c.vector for c in rows]))) <= 1e-5
    one = rows[-1]  # another batch, another length
    ids = np.array([one.token_ids], np.int32)
    assert np.max(np.abs(np.asarray(call(parameters, ids, ids >= 0))[0] - one.vector)) <= 1e-5


@pytest.mark.slow
def test_the_program_holds_the_models_parameters(program, gemma_bundle, foreign):
    ours = foreign.parameters(gemma_bundle)
    with np.load(program / "parameters.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(ours)
        assert all(np.array_equal(stored[path], ours[path]) for path in ours)
    described = json.loads((program / "model.json").read_text())
    assert "architecture" not in described and described["padding_token_id"] == 0
    assert described["matryoshka_dims"] == [10, 4] and described["lengths"]["query"] == 48
    ours, theirs = (json.loads((f / "tokenizer.json").read_text()) for f in (gemma_bundle, program))
    changed = {k for k in theirs if theirs[k] != ours.get(k)}
    assert changed == {"truncation"} and theirs["truncation"]["max_length"] == 48


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "modernbert", "qwen3", "t5gemma", "embedding_gemma2_text"])
def test_programs_of_other_families_give_the_same(family, rounds, tmp_path):
    trained = origin.open_trained(rounds(family).first)
    stablehlo.write(tmp_path, trained)
    tokens = np.random.default_rng(0).integers(4, 264, (3, 20)).astype(np.int32)
    mask = np.arange(20) < np.array([20, 9, 1])[:, None]
    params = trees.unflatten({path: trained.read(path) for path in trained.shapes})
    wanted = np.asarray(jax.jit(api.build(trained.module).apply)(params, {"tokens": tokens, "segment_ids": mask}))
    program = jax.jit(jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes())).call)
    with np.load(tmp_path / "parameters.npz", allow_pickle=False) as stored:
        found = np.asarray(program({name: stored[name] for name in stored.files}, tokens, mask))
    assert np.max(np.abs(found - wanted)) <= 1e-5 and np.max(np.std(wanted, axis=0)) > 1e-3
