"""Whole language models against transformers: T5Gemma's encoder-decoder, and a causal Gemma 3, by their logits."""

import json

import jax
import numpy as np
import parity_foreign
import pytest
import torch
import transformers

from embed import bundles, checkpoints
from embed.errors import DataError
from embed.interop import convert, source
from embed.models import api

pytestmark = pytest.mark.parity

LENGTH, DECODER_LENGTH = 23, 17  # longer than every window


def write(folder, model):
    """Writes a model with random norms and its tokenizer, as `parity_foreign.make` does."""
    with torch.no_grad():
        for path, p in model.named_parameters():
            p.add_(0.3 * torch.randn_like(p)) if "norm" in path else p.copy_(torch.randn_like(p) * p.shape[-1] ** -0.5)
    model.tie_weights()
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(parity_foreign.tokenizer_json())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 64})
    )
    return model.eval()


def t5gemma(folder, **decoder):
    torch.manual_seed(0)
    parts = {**parity_foreign.T5GEMMA, "final_logit_softcapping": 3.0}
    config = transformers.T5GemmaConfig(
        encoder=parts, decoder={**parts, **decoder}, is_encoder_decoder=True, vocab_size=parity_foreign.VOCAB
    )
    return write(folder, transformers.T5GemmaForConditionalGeneration._from_config(config, attn_implementation="eager"))


def opened(folder, output):
    """Returns (model, params) of the bundle that the folder becomes."""
    convert.convert(source.read(folder, with_decoder=True), output, "t5gemma")
    model = api.build(api.from_description(bundles.read_model_json(output)["architecture"]))
    return model, checkpoints.restore(output, "params", jax.eval_shape(model.init, jax.random.key(0)))


def rows(length: int, seed: int):
    """Returns (tokens, mask) of three rows, one of which is padded."""
    random = np.random.default_rng(seed)
    tokens = random.integers(4, parity_foreign.VOCAB - 30, (3, length)).astype(np.int32)
    mask = np.arange(length) < np.array([length, length - 4, length])[:, None]
    return np.where(mask, tokens, 0), mask


@pytest.mark.parametrize("decoder", [{}, {"num_hidden_layers": 2, "intermediate_size": 24, "num_key_value_heads": 1}])
def test_logits_of_t5gemma(decoder, tmp_path):
    torch_model = t5gemma(tmp_path / "theirs", **decoder)
    model, params = opened(tmp_path / "theirs", tmp_path / "ours")
    (tokens, mask), (decoder_tokens, decoder_mask) = rows(LENGTH, 0), rows(DECODER_LENGTH, 1)
    with torch.no_grad():
        expected = torch_model(
            input_ids=torch.tensor(tokens.astype(np.int64)),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            decoder_input_ids=torch.tensor(decoder_tokens.astype(np.int64)),
            decoder_attention_mask=torch.tensor(decoder_mask.astype(np.int64)),
        ).logits.numpy()
    inputs = {
        "tokens": tokens,
        "segment_ids": mask,
        "decoder_tokens": decoder_tokens,
        "decoder_segment_ids": decoder_mask,
    }
    with jax.default_matmul_precision("highest"):
        states = model.apply(params, inputs, method="decode")
        logits = np.asarray(model.apply(params, {"states": states}, method="logits"))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits[decoder_mask], expected[decoder_mask], atol=1e-5)


def test_logits_of_a_causal_gemma(tmp_path):
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(**parity_foreign.GEMMA)
    torch_model = write(tmp_path / "theirs", transformers.Gemma3ForCausalLM._from_config(config))
    convert.convert(source.read(tmp_path / "theirs"), tmp_path / "ours", "gemma3")
    model = api.build(api.from_description(bundles.read_model_json(tmp_path / "ours")["architecture"]))
    params = checkpoints.restore(tmp_path / "ours", "params", jax.eval_shape(model.init, jax.random.key(0)))
    tokens, mask = rows(LENGTH, 0)
    with torch.no_grad():
        expected = torch_model(
            input_ids=torch.tensor(tokens.astype(np.int64)), attention_mask=torch.tensor(mask.astype(np.int64))
        ).logits.numpy()
    with jax.default_matmul_precision("highest"):
        states = model.apply(params, {"tokens": tokens, "segment_ids": mask}, method="decode")
        logits = np.asarray(model.apply(params, {"states": states}, method="logits"))
    np.testing.assert_allclose(logits[mask], expected[mask], atol=1e-5)


def test_packed_texts_have_the_logits_of_single_ones(tmp_path):
    t5gemma(tmp_path / "theirs")
    model, params = opened(tmp_path / "theirs", tmp_path / "ours")
    (tokens, _), (decoder_tokens, _) = rows(LENGTH, 0), rows(DECODER_LENGTH, 1)
    names = ("tokens", "segment_ids", "decoder_tokens", "decoder_segment_ids")
    segment_ids = np.where(np.arange(LENGTH) < 9, 1, 2)[None].astype(np.int32)
    decoder_segment_ids = np.where(np.arange(DECODER_LENGTH) < 5, 1, 2)[None].astype(np.int32)
    packed = model.apply(
        params, dict(zip(names, (tokens[:1], segment_ids, decoder_tokens[:1], decoder_segment_ids))), method="decode"
    )
    alone = [
        model.apply(params, dict(zip(names, (x, np.ones_like(x, bool), y, np.ones_like(y, bool)))), method="decode")
        for x, y in ((tokens[:1, :9], decoder_tokens[:1, :5]), (tokens[:1, 9:], decoder_tokens[:1, 5:]))
    ]
    np.testing.assert_allclose(packed, np.concatenate(alone, 1), atol=1e-5)


def test_a_folder_without_a_decoder_is_refused(tmp_path):
    write(tmp_path, transformers.Gemma3ForCausalLM._from_config(transformers.Gemma3TextConfig(**parity_foreign.GEMMA)))
    with pytest.raises(DataError, match="gemma3_text has no decoder to read; leave --with_decoder out"):
        source.read(tmp_path, with_decoder=True)


@pytest.mark.parametrize("place", ["decoder", None])
def test_a_head_of_its_own_is_refused(place, tmp_path):
    t5gemma(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (config if place is None else config[place])["tie_word_embeddings"] = False
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="tie_word_embeddings"):
        source.read(tmp_path, with_decoder=True)
