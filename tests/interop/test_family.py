"""What families of foreign checkpoints read from config.json: sizes, activations, rotary positions and the pattern of layers."""

import json

import pytest
from foreign_folders import edit, error

from embed.errors import DataError
from embed.interop import source as sources

ROPE = {
    "an unknown entry": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "short_factor": [1]}},
    "two kinds": {"rope_scaling": {"rope_type": "default", "type": "yarn"}},
    "part of a head": {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    "a list": {"rope_parameters": [1]},
    "a base of zero": {"rope_parameters": {"rope_theta": 0}},
}


@pytest.mark.parametrize("family", ["qwen3", "t5gemma", "gemma3_text", "modernbert"])
@pytest.mark.parametrize("kind", ROPE)
def test_rotary_positions_that_are_not_computed(kind, family, folder):
    values = ROPE[kind]
    if (
        family in ("gemma3_text", "modernbert")
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


@pytest.mark.parametrize("family", ["gemma3_text", "t5gemma", "modernbert", "qwen3"])
@pytest.mark.parametrize("value", [1e9, -1, "3", None, 2.5])
def test_layers_that_cannot_be_in_every_family(family, value, foreign, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs", family)
    config = json.loads((folder / "config.json").read_text())
    config.get("encoder", config)["num_hidden_layers"] = value
    foreign.write_json(folder / "config.json", config)
    assert "num_hidden_layers" in error(folder)
