"""Qwen3: its sizes and rotary base, a decoder that looks back alone, and what is refused."""

import pytest

from embed.errors import DataError
from embed.interop.families.qwen3 import QWEN3
from embed.models.qwen3 import Qwen3

SIZES = {
    "vocab_size": 264,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 20,
    "rms_norm_eps": 1e-6,
}
FIELDS = {
    "vocab_size": 264,
    "width": 12,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "mlp_dim": 20,
    "norm_eps": 1e-6,
}


def test_what_the_file_does_not_say_is_as_in_transformers():
    assert QWEN3.fields(SIZES) == {**FIELDS, "causal": True, "rope_base": 10_000.0, "attention_bias": False}


def test_entries_are_read():
    found = QWEN3.fields({**SIZES, "is_causal": False, "rope_theta": 1e6, "attention_bias": True})
    assert found == {**FIELDS, "causal": False, "rope_base": 1e6, "attention_bias": True}
    assert QWEN3.fields({**SIZES, "rope_theta": 1e6, "rope_parameters": {"rope_theta": 2e6}})["rope_base"] == 2e6


@pytest.mark.parametrize(("types", "taken"), [(None, True), ([], True), (["full_attention"] * 2, True), (["x"], False)])
def test_every_layer_sees_the_whole_text(types, taken):
    if taken:
        assert QWEN3.fields({**SIZES, "layer_types": types})["causal"] is True
    else:
        with pytest.raises(DataError, match="layer_types other than full_attention are not supported in qwen3"):
            QWEN3.fields({**SIZES, "layer_types": types})


def test_an_encoder_that_is_written_comes_back():
    given = {**FIELDS, "causal": True, "rope_base": 5e5, "attention_bias": True}
    config = QWEN3.config(Qwen3(**given))
    assert QWEN3.fields(config) == given
    # transformers windows the layers above max_window_layers when it is told to.
    assert (config["max_window_layers"], config["use_sliding_window"]) == (2, False)


def test_a_decoder_that_is_opened_has_no_family():
    assert QWEN3.owns(Qwen3()) and not QWEN3.owns(Qwen3(causal=False))
