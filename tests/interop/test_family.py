"""What families of foreign checkpoints read from config.json: sizes, activations, rotary positions and the pattern of layers."""

import json
import types

import pytest
from foreign_folders import edit, error

from embed.errors import DataError
from embed.interop import family as reading
from embed.interop import source as sources

ROPE = {
    "an unknown entry": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "short_factor": [1]}},
    "two kinds": {"rope_scaling": {"rope_type": "default", "type": "yarn"}},
    "part of a head": {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    "a list": {"rope_parameters": [1]},
    "a base of zero": {"rope_parameters": {"rope_theta": 0}},
}


@pytest.mark.parametrize("family", ["qwen3", "t5gemma", "gemma3_text", "embedding_gemma2_text", "modernbert"])
@pytest.mark.parametrize("kind", ROPE)
def test_rotary_positions_that_are_not_computed(kind, family, folder):
    values = ROPE[kind]
    if (
        family in ("gemma3_text", "embedding_gemma2_text", "modernbert")
        and "rope_parameters" in values
        and isinstance(values["rope_parameters"], dict)
    ):
        values = {"rope_parameters": {"full_attention": values["rope_parameters"]}}
    root = folder(family)
    edit(root / "config.json", **values)
    with pytest.raises(DataError) as e:
        sources.read(root)
    assert str(root / "config.json") in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("family", ["gemma3_text", "modernbert"])
def test_flat_rotary_positions_where_kinds_of_attention_have_their_own(family, folder):
    root = folder(family)
    edit(root / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    with pytest.raises(DataError, match="rope_parameters must have full_attention and sliding_attention"):
        sources.read(root)
    edit(root / "config.json", rope_parameters=None, rope_scaling="linear")
    with pytest.raises(DataError, match="rope_scaling = 'linear' is not an object"):
        sources.read(root)


HUGE = [
    ("num_hidden_layers", 1e9),
    ("num_hidden_layers", 10**18),
    ("num_hidden_layers", -1),
    ("num_hidden_layers", 0),
    ("num_hidden_layers", True),
    ("hidden_size", 10**12),
    ("vocab_size", 10**12),
    ("intermediate_size", -5),
    ("max_position_embeddings", 10**15),
    ("type_vocab_size", 10**9),
    ("num_attention_heads", 5),
    ("num_attention_heads", 10**9),
    ("layer_norm_eps", -1.0),
]


@pytest.mark.parametrize(("name", "value"), HUGE, ids=str)
def test_sizes_that_cannot_be_are_refused_at_once(name, value, theirs):
    edit(theirs / "config.json", **{name: value})
    assert f"{theirs / 'config.json'}: " in error(theirs) and name in error(theirs)


@pytest.mark.parametrize("family", ["gemma3_text", "embedding_gemma2_text", "t5gemma", "modernbert", "qwen3"])
@pytest.mark.parametrize("value", [1e9, -1, "3", None, 2.5])
def test_layers_that_cannot_be_in_every_family(family, value, foreign, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs", family)
    config = json.loads((folder / "config.json").read_text())
    config.get("encoder", config)["num_hidden_layers"] = value
    foreign.write_json(folder / "config.json", config)
    assert "num_hidden_layers" in error(folder)


@pytest.mark.parametrize(
    ("given", "kinds", "expected"),
    [
        (None, ("default",), (7.0, 1.0)),
        ({}, ("default",), (7.0, 1.0)),
        ({"rope_type": "default", "rope_theta": 3}, ("default",), (3.0, 1.0)),
        ({"type": "linear", "factor": 8}, ("default", "linear"), (7.0, 8.0)),
        ({"rope_type": "linear", "rope_theta": 3}, ("linear",), (3.0, 1.0)),
        # What does not matter to the default kind, and what is not set.
        ({"factor": 4.0, "original_max_position_embeddings": 512, "low_freq_factor": None}, ("default",), (7.0, 1.0)),
        ({"partial_rotary_factor": 1.0}, ("default",), (7.0, 1.0)),
    ],
    ids=str,
)
def test_base_and_stretch_of_rotary_positions(given, kinds, expected):
    assert reading.rope(given, 7.0, kinds) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1], r"rotary positions \[1\] are not an object; restore the file"),
        ({"rope_type": "linear", "factor": 8.0}, "rotary positions of kind 'linear' are not supported, only default"),
        ({"rope_type": "default", "type": "linear"}, "rotary positions of kind 'default' are not supported"),
        ({"partial_rotary_factor": 0.5}, "rotary positions with partial_rotary_factor are not supported"),
        ({"rope_type": "default", "short_factor": [1]}, "rotary positions with rope_type, short_factor are not"),
        ({"rope_theta": 0}, "rope_theta = 0 cannot be"),
    ],
    ids=str,
)
def test_rotary_positions_of_other_kinds_are_refused(given, message):
    with pytest.raises(DataError, match=f"^config.json: {message}"):
        reading.rope(given, 7.0)


def test_an_old_scaling_is_written_over_the_kinds_that_have_it():
    config = {
        "rope_parameters": {"full_attention": {"rope_theta": 3, "factor": 2}, "sliding_attention": {"rope_theta": 5}},
        "rope_scaling": {"factor": 8},
    }
    assert reading.nested_rope(config, ("full_attention",)) == ({"rope_theta": 3, "factor": 8}, {"rope_theta": 5})
    assert reading.nested_rope(config, ("sliding_attention",)) == (
        {"rope_theta": 3, "factor": 2},
        {"rope_theta": 5, "factor": 8},
    )
    assert config["rope_parameters"]["full_attention"]["factor"] == 2  # nothing is changed
    assert reading.nested_rope({}, ("full_attention",)) == ({}, {})


def test_one_base_for_all_layers():
    assert reading.flat_rope({}, 7.0) == 7.0
    assert reading.flat_rope({"rope_theta": 5}, 7.0) == 5.0
    assert reading.flat_rope({"rope_theta": 5, "rope_parameters": {"rope_theta": 4}}, 7.0) == 4.0
    # An old entry replaces the new one, and says nothing of the base.
    both = {"rope_theta": 5, "rope_parameters": {"rope_theta": 4}, "rope_scaling": {"type": "default"}}
    assert reading.flat_rope(both, 7.0) == 5.0


F, S = "full_attention", "sliding_attention"
PATTERNS = [
    ({}, True, 6),
    ({"every": 2}, True, 2),
    ({"every": None}, True, 6),
    ({"layer_types": [S, S, F, S, S]}, True, 3),
    ({"layer_types": [F, S, S, F, S]}, False, 3),
    ({"layer_types": [F] * 5}, True, 1),
    ({"layer_types": [F] * 5}, False, 1),
    ({"layer_types": [S] * 5}, True, 6),  # the family's number fits
    ({"layer_types": [S] * 5, "every": 2}, True, 6),  # no layer of five is a sixth
    ({"layer_types": [S, F, S, F, S], "every": 3}, True, 2),
    ({"layer_types": [S, S, S, S, F], "every": 5}, True, 5),
    ({"layer_types": [F, S, S, S, S], "every": 9}, False, 9),
]


@pytest.mark.parametrize(("entries", "last", "expected"), PATTERNS, ids=str)
def test_every_which_layer_is_global(entries, last, expected):
    config = {"num_hidden_layers": 5, "sliding_window_pattern": entries.get("every"), **entries}
    assert reading.layer_pattern(config, "sliding_window_pattern", every=6, last=last) == expected


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ([S, F, F, S, S], "do not repeat; only every N-th layer may be global"),
        ([F, S, S, S, F], "do not repeat"),
        ([S, F], "names 2 layers, num_hidden_layers says 5"),
        ([S, S, S, S, "chunked_attention"], "are not full_attention and sliding_attention alone"),
        ("full_attention", "are not full_attention and sliding_attention alone"),
    ],
    ids=str,
)
def test_kinds_of_layers_without_a_pattern_are_refused(types, message):
    with pytest.raises(DataError, match=f"^config.json: layer_types .*{message}"):
        reading.layer_pattern({"num_hidden_layers": 5, "layer_types": types}, "", every=6, last=True)


def test_kinds_of_layers_are_written_as_they_are_read():
    assert reading.layer_types(5, 2) == [S, F, S, F, S]
    assert reading.layer_types(2, 3) == [S, S] and reading.layer_types(2, 1) == [F, F]


NAMES = {"width": "hidden_size", "num_heads": "num_attention_heads", "norm_eps": "rms_norm_eps"}
SIZES = {"hidden_size": 12, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 5, "rms_norm_eps": 1e-6}


def test_fields_are_read_and_written_under_both_names():
    fields = reading.read_fields(SIZES, NAMES)
    assert fields == {"width": 12, "num_heads": 4, "norm_eps": 1e-6}
    assert reading.write_fields(types.SimpleNamespace(**fields, other=1), NAMES) == {
        k: SIZES[k] for k in NAMES.values()
    }
    with pytest.raises(KeyError, match="hidden_size"):
        reading.read_fields({}, NAMES)


def test_heads_that_cannot_share_are_refused():
    with pytest.raises(DataError, match="hidden_size = 13 cannot be shared by 4 num_attention_heads; restore"):
        reading.read_fields({**SIZES, "hidden_size": 13}, NAMES)
    own_size = {**NAMES, "head_dim": "head_dim"}
    assert reading.read_fields({**SIZES, "hidden_size": 13}, own_size)["head_dim"] == 5
    groups = {**NAMES, "num_kv_heads": "num_key_value_heads"}
    assert reading.read_fields(SIZES, groups)["num_kv_heads"] == 2
    with pytest.raises(DataError, match="4 num_attention_heads cannot share 3 num_key_value_heads; restore"):
        reading.read_fields({**SIZES, "num_key_value_heads": 3}, groups)


@pytest.mark.parametrize("theirs, ours", [(None, "relu"), ("gelu_new", "gelu_tanh"), ("silu", "silu")])
def test_activations_have_our_names(theirs, ours):
    assert reading.activation({} if theirs is None else {"act": theirs}, "act", "relu") == ours


def test_an_unknown_activation_lists_the_known():
    with pytest.raises(DataError, match="^config.json: act = 'gelu_fast' is not supported, only 'gelu', 'gelu_new', "):
        reading.activation({"act": "gelu_fast"}, "act", "gelu")


def test_an_epsilon_is_above_zero_and_at_most_one():
    assert reading.epsilon({"eps": 1}, "eps") == 1.0 and reading.epsilon({}, "eps", 1e-5) == 1e-5
    for value in (0.0, 1.5):
        with pytest.raises(DataError, match="eps = .* a number above 0 and up to 1 is needed"):
            reading.epsilon({"eps": value}, "eps")
