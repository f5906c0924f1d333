"""BERT and XLM-RoBERTa: their tensors one by one, their sizes, and where positions begin."""

import numpy as np
import pytest

from embed.errors import DataError
from embed.interop.families.bert import BERT, XLM_ROBERTA
from embed.models.bert import Bert


@pytest.mark.parametrize("family", ("bert", "xlm-roberta"))
def test_bert_blocks(family, read):
    _, theirs, ours = read(family)
    for path, name in (
        ("embedding/table", "word_embeddings.weight"),
        ("position_embedding/table", "position_embeddings.weight"),
        ("type_embedding/table", "token_type_embeddings.weight"),
        ("embedding_norm/scale", "LayerNorm.weight"),
        ("embedding_norm/bias", "LayerNorm.bias"),
    ):
        assert np.array_equal(ours[f"encoder/{path}"], theirs[f"embeddings.{name}"])
    for layer in range(2):
        mine = {p.removeprefix("encoder/stack/layers/"): x[layer] for p, x in ours.items() if "layers" in p}
        at = f"encoder.layer.{layer}."
        for name in ("query", "key", "value"):
            weight, bias = (theirs[f"{at}attention.self.{name}.{p}"] for p in ("weight", "bias"))
            for h in range(3):
                for k in range(4):
                    assert mine[f"attention/{name}/bias"][h, k] == bias[h * 4 + k]
                    assert np.array_equal(mine[f"attention/{name}/kernel"][:, h, k], weight[h * 4 + k])
        weight = theirs[f"{at}attention.output.dense.weight"]
        for h in range(3):
            for k in range(4):
                assert np.array_equal(mine["attention/output/kernel"][h, k], weight[:, h * 4 + k])
        assert np.array_equal(mine["attention/output/bias"], theirs[f"{at}attention.output.dense.bias"])
        for path, name in (("attention_norm", "attention.output.LayerNorm"), ("mlp_norm", "output.LayerNorm")):
            assert np.array_equal(mine[f"{path}/scale"], theirs[f"{at}{name}.weight"])
            assert np.array_equal(mine[f"{path}/bias"], theirs[f"{at}{name}.bias"])
        for path, name in (("up", "intermediate.dense"), ("down", "output.dense")):
            assert np.array_equal(mine[f"mlp/{path}/kernel"], theirs[f"{at}{name}.weight"].T)
            assert np.array_equal(mine[f"mlp/{path}/bias"], theirs[f"{at}{name}.bias"])


SIZES = {
    "vocab_size": 264,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 60,
    "type_vocab_size": 2,
}
FIELDS = {
    "vocab_size": 264,
    "width": 12,
    "num_layers": 2,
    "num_heads": 3,
    "mlp_dim": 20,
    "max_positions": 60,
    "num_token_types": 2,
}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"), ("relu", "relu")],
)
def test_sizes_activation_and_epsilon_are_read(theirs, ours):
    found = BERT.fields({**SIZES, "hidden_act": theirs, "layer_norm_eps": 1e-5})
    assert found == {**FIELDS, "activation": ours, "norm_eps": 1e-5}


def test_what_the_file_does_not_say_is_as_in_transformers():
    assert BERT.fields(SIZES) == {**FIELDS, "activation": "gelu", "norm_eps": 1e-12}


@pytest.mark.parametrize(("pad", "offset"), [({}, 2), ({"pad_token_id": 0}, 1), ({"pad_token_id": 58}, 59)])
def test_positions_of_xlm_roberta_begin_behind_the_paddings(pad, offset):
    assert XLM_ROBERTA.fields({**SIZES, **pad})["position_offset"] == offset
    assert "position_offset" not in BERT.fields({**SIZES, **pad})


@pytest.mark.parametrize("pad", [59, -1, True])
def test_a_padding_that_leaves_no_position_is_refused(pad):
    with pytest.raises(DataError, match="config.json: pad_token_id = .* a whole number from 0 to 58"):
        XLM_ROBERTA.fields({**SIZES, "pad_token_id": pad})


@pytest.mark.parametrize(("offset", "family", "most"), [(0, BERT, 60), (2, XLM_ROBERTA, 58)])
def test_an_encoder_is_written_by_the_family_of_its_offset_and_comes_back(offset, family, most):
    encoder = Bert(**FIELDS, activation="gelu_tanh", norm_eps=1e-6, position_offset=offset)
    assert [f for f in (BERT, XLM_ROBERTA) if f.owns(encoder)] == [family]
    assert family.max_length(encoder) == most
    config = family.config(encoder)
    assert config.get("pad_token_id") == (1 if offset else None)
    assert (config["hidden_act"], config["layer_norm_eps"]) == ("gelu_pytorch_tanh", 1e-6)
    assert {k: config[k] for k in SIZES} == SIZES
    assert Bert(**family.fields(config)) == encoder
