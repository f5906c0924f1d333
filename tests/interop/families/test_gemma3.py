"""Gemma 3: which layers are global, the rotary positions of both kinds, one-sided or two-sided attention."""

import pytest
from gemma_entries import FIELDS, SIZES

from embed.errors import DataError
from embed.interop.families.gemma3 import GEMMA3
from embed.models.gemma import Gemma

# As Gemma 3's configuration of transformers: every sixth layer global, causal, two rotary bases.
SILENT = {
    "global_every": 6,
    "causal": True,
    "local_rope_base": 10_000.0,
    "global_rope_base": 1_000_000.0,
    "global_rope_scale": 1.0,
}


def fields(**entries) -> dict:
    return GEMMA3.fields({**SIZES, **entries})


def test_what_the_file_does_not_say_is_as_in_transformers():
    assert fields() == {**FIELDS, **SILENT}


@pytest.mark.parametrize(("entry", "causal"), [(None, True), (False, True), (True, False)])
def test_attention_is_two_sided_only_when_the_file_says_so(entry, causal):
    assert fields(use_bidirectional_attention=entry)["causal"] is causal


PATTERNS = {
    "sliding_window_pattern": ({"sliding_window_pattern": 3}, 3),
    "both names": ({"sliding_window_pattern": 3, "_sliding_window_pattern": 3}, 3),
    "the second says nothing": ({"sliding_window_pattern": 3, "_sliding_window_pattern": None}, 3),
    "layer_types": ({"layer_types": ["sliding_attention", "full_attention"] * 2}, 2),
    "layer_types with a pattern that fits": (
        {"layer_types": ["sliding_attention"] * 4, "_sliding_window_pattern": 9},
        9,
    ),
    "layer_types before a pattern": (
        {"layer_types": ["sliding_attention", "full_attention"] * 2, "_sliding_window_pattern": 3},
        2,
    ),
}


@pytest.mark.parametrize("kind", PATTERNS)
def test_which_layers_are_global(kind):
    entries, every = PATTERNS[kind]
    assert fields(**entries)["global_every"] == every


def test_a_pattern_that_transformers_does_not_read_is_refused():
    with pytest.raises(DataError, match="_sliding_window_pattern = 3, but transformers reads .* which say 6; write"):
        fields(_sliding_window_pattern=3)
    with pytest.raises(DataError, match="_sliding_window_pattern = 6, but transformers reads .* which say 3; write"):
        fields(sliding_window_pattern=3, _sliding_window_pattern=6)


def test_an_old_scaling_stretches_the_positions_of_global_layers_alone():
    found = fields(rope_theta=3e5, rope_local_base_freq=9e3, rope_scaling={"rope_type": "linear", "factor": 8.0})
    assert (found["global_rope_base"], found["global_rope_scale"], found["local_rope_base"]) == (3e5, 8.0, 9e3)


def test_rotary_positions_by_kind_of_attention_go_before_the_flat_ones():
    parameters = {
        "full_attention": {"rope_type": "linear", "rope_theta": 2e6, "factor": 4.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 7e3},
    }
    found = fields(rope_theta=3e5, rope_local_base_freq=9e3, rope_parameters=parameters)
    assert (found["global_rope_base"], found["global_rope_scale"], found["local_rope_base"]) == (2e6, 4.0, 7e3)


def test_stretched_local_positions_are_refused():
    stretched = {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}
    with pytest.raises(DataError, match="rotary positions of kind 'linear' are not supported, only default"):
        fields(rope_parameters=stretched)


@pytest.mark.parametrize("changes", [{}, {"causal": True, "global_rope_scale": 8.0, "global_every": 3}], ids=str)
def test_an_encoder_that_is_written_comes_back(changes):
    given = {**FIELDS, **SILENT, "global_every": 2, "causal": False, **changes}
    config = GEMMA3.config(Gemma(**given))
    assert GEMMA3.fields(config) == given
    assert {k: config[k] for k in SIZES} == SIZES
    scale = changes.get("global_rope_scale")
    assert config["rope_scaling"] == (None if scale is None else {"factor": 8.0, "rope_type": "linear"})
    kinds = ["sliding_attention"] * 4
    kinds[given["global_every"] - 1 :: given["global_every"]] = ["full_attention"] * (4 // given["global_every"])
    assert config["layer_types"] == kinds
    assert config["use_bidirectional_attention"] is not given["causal"]


def test_the_scale_that_an_encoder_does_not_say_is_that_of_its_heads():
    assert GEMMA3.config(Gemma(head_dim=64))["query_pre_attn_scalar"] == 64
    assert GEMMA3.config(Gemma(head_dim=64, query_scale=0.1))["query_pre_attn_scalar"] == 100
