"""EmbeddingGemma 2: heads of global layers, which layers they are, tensors by period, and folders that have parts for images."""

import numpy as np
import pytest
from foreign_folders import edit, error

from embed.errors import DataError
from embed.interop import source as sources
from embed.interop.families.embedding_gemma2 import EMBEDDING_GEMMA2
from embed.models.embedding_gemma2 import EmbeddingGemma2

SIZES = {
    "vocab_size": 264,
    "hidden_size": 12,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 20,
    "rms_norm_eps": 1e-6,
    "sliding_window": 8,
    "hidden_size_per_layer_input": 7,
    "embedding_dim": 10,
}
FIELDS = {
    "vocab_size": 264,
    "width": 12,
    "num_layers": 4,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 6,
    "mlp_dim": 20,
    "norm_eps": 1e-6,
    "window": 8,
    "per_layer_dim": 7,
    "output_dim": 10,
}
# As EmbeddingGemma 2's configuration of transformers; the last layer is always global.
SILENT = {
    "global_num_kv_heads": 1,
    "global_head_dim": 512,
    "global_every": 4,
    "local_rope_base": 10_000.0,
    "global_rope_base": 1_000_000.0,
}
S, F = "sliding_attention", "full_attention"


def fields(**entries) -> dict:
    return EMBEDDING_GEMMA2.fields({**SIZES, **entries})


def test_what_the_file_does_not_say_is_as_in_transformers():
    assert fields() == {**FIELDS, **SILENT}
    assert EMBEDDING_GEMMA2.fields({**SIZES, "num_hidden_layers": 24})["global_every"] == 6


@pytest.mark.parametrize(
    ("entries", "every"),
    [
        ({"sliding_window_pattern": 2}, 2),
        ({"sliding_window_pattern": 3}, 3),
        ({"layer_types": [S, F, S, F]}, 2),
        ({"layer_types": [S, F, S, F], "sliding_window_pattern": 3}, 2),
        ({"layer_types": [S, S, F, S]}, 3),  # the last is made global
        ({"layer_types": [S] * 4}, 4),
        ({"layer_types": [F] * 4}, 1),
    ],
    ids=str,
)
def test_which_layers_are_global(entries, every):
    assert fields(**entries)["global_every"] == every


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (
            [F, S, S, F],
            r"the full_attention layers \[0, 3\] do not repeat; only every N-th layer and the last may be global",
        ),
        ([S, F], "layer_types names 2 layers, num_hidden_layers says 4"),
        ([S, S, S, "chunked_attention"], "layer_types .* are not full_attention and sliding_attention alone"),
        ("full_attention", "layer_types 'full_attention' are not full_attention and sliding_attention alone"),
    ],
    ids=str,
)
def test_kinds_of_layers_without_a_pattern_are_refused(types, message):
    with pytest.raises(DataError, match=f"^config.json: {message}"):
        fields(layer_types=types)


WIDER = {"head_dim": 8, "num_key_value_heads": 4}
HEADS = {
    "by layer": ({"per_layer_config": {"1": WIDER, "3": WIDER}}, (8, 4)),
    "zeros in front": ({"per_layer_config": {"01": WIDER, "03": WIDER}}, (8, 4)),
    "only what differs": ({"per_layer_config": {"1": {"head_dim": 8}, "3": {"head_dim": 8, "skip": []}}}, (8, 2)),
    "what does not differ too": ({"per_layer_config": {"0": {"head_dim": 6}, "1": WIDER, "3": WIDER}}, (8, 4)),
    "nothing differs": ({"per_layer_config": {}}, (6, 2)),
    "null": ({"per_layer_config": None}, (6, 2)),
    "for all": ({"global_head_dim": 10, "num_global_key_value_heads": 2}, (10, 2)),
    "by layer before for all": ({"per_layer_config": {"1": WIDER, "3": WIDER}, "global_head_dim": 10}, (8, 4)),
}


@pytest.mark.parametrize("case", HEADS)
def test_heads_of_global_layers(case):
    entries, heads = HEADS[case]
    read = fields(layer_types=[S, F, S, F], **entries)
    assert (read["global_head_dim"], read["global_num_kv_heads"]) == heads
    assert (read["head_dim"], read["num_kv_heads"]) == (6, 2)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"1": WIDER}, "gives layers of one kind different heads; only full_attention layers may differ"),
        ({"0": WIDER, "1": WIDER, "3": WIDER}, "gives layers of one kind different heads; only full_attention"),
        (
            {"1": {"intermediate_size": 9}},
            "gives layers their own intermediate_size; only head_dim and num_key_value_heads",
        ),
        ({"1": {"skip": ["mlp"]}}, "gives layers their own skip; only head_dim"),
        ({"4": WIDER}, "names the layer '4', but there are 4; restore"),
        ({"first": WIDER}, "names the layer 'first', but there are 4; restore"),
        ([WIDER], "is not an object of objects by layer; restore"),
        ({"1": 8}, "is not an object of objects by layer; restore"),
    ],
    ids=str,
)
def test_layers_that_differ_otherwise_are_refused(layers, message):
    with pytest.raises(DataError, match=f"^config.json: per_layer_config .*{message}"):
        fields(layer_types=[S, F, S, F], per_layer_config=layers)


def test_global_heads_that_cannot_share_are_refused():
    with pytest.raises(
        DataError, match="4 num_attention_heads cannot share 3 num_key_value_heads in full_attention layers"
    ):
        fields(num_global_key_value_heads=3)


@pytest.mark.parametrize("entry", ["head_dim", "num_key_value_heads"])
def test_sizes_of_a_layer_that_cannot_be_are_refused(entry):
    with pytest.raises(DataError, match=f"config.json: {entry} = 0 cannot be"):
        fields(per_layer_config={"3": {entry: 0}})


def test_rotary_positions_are_by_kind_of_attention_alone():
    parameters = {F: {"rope_type": "default", "rope_theta": 2e6}, S: {"rope_theta": 7e3}}
    read = fields(rope_parameters=parameters)
    assert (read["global_rope_base"], read["local_rope_base"]) == (2e6, 7e3)
    with pytest.raises(DataError, match="rotary positions of kind 'proportional' are not supported, only default"):
        fields(rope_parameters={F: {"rope_type": "proportional", "rope_theta": 2e6}})


@pytest.mark.parametrize(
    "entries", [{"rope_theta": 5e5}, {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}], ids=str
)
def test_old_rotary_entries_are_refused(entries, folder):
    root = folder("embedding_gemma2_text")
    edit(root / "config.json", **entries)
    assert "is not supported, only None; transformers does not read it here; use rope_parameters" in error(root)


@pytest.mark.parametrize("layers", [4, 5, 2])
def test_an_encoder_that_is_written_comes_back(layers):
    changes = {"num_layers": layers, "global_head_dim": 8, "global_every": 2, "local_rope_base": 9e3}
    given = {**FIELDS, **SILENT, **changes}
    config = EMBEDDING_GEMMA2.config(EmbeddingGemma2(**given))
    assert EMBEDDING_GEMMA2.fields(config) == given
    assert {k: config[k] for k in SIZES} == {**SIZES, "num_hidden_layers": layers}
    assert config["layer_types"] == {4: [S, F, S, F], 5: [S, F, S, F, F], 2: [S, F]}[layers]
    assert set(config["per_layer_config"]) == {4: {"1", "3"}, 5: {"1", "3", "4"}, 2: {"1"}}[layers]


@pytest.mark.slow
def test_tensors_of_every_layer_lie_in_its_period(read):
    """Two local layers and a global one; then a local one and a last one, which is global."""
    _, theirs, ours = read("embedding_gemma2_text")
    places = ["periods/local 0 0", "periods/local 0 1", "periods/global 0", "last/local 0", "last/global"]
    for layer, place in enumerate(places):
        path, *index = place.split()
        block = {
            name.removeprefix(f"encoder/stack/{path}/"): x[tuple(map(int, index))]
            for name, x in ours.items()
            if name.startswith(f"encoder/stack/{path}/")
        }
        at = f"layers.{layer}."
        size = 10 if "global" in place else 6
        for name in ("query", "key", "value"):
            weight = theirs[f"{at}self_attn.{name[0]}_proj.weight"]
            for h in range(len(weight) // size):
                for k in range(size):
                    assert np.array_equal(block[f"attention/{name}/kernel"][:, h, k], weight[h * size + k])
        output = theirs[f"{at}self_attn.o_proj.weight"]
        for h in range(4):
            for k in range(size):
                assert np.array_equal(block["attention/output/kernel"][h, k], output[:, h * size + k])
        for mine, name in (
            ("attention/query_norm", "self_attn.q_norm"),
            ("attention/key_norm", "self_attn.k_norm"),
            ("attention_norm", "input_layernorm"),
            ("attention_post_norm", "post_attention_layernorm"),
            ("mlp_norm", "pre_feedforward_layernorm"),
            ("mlp_post_norm", "post_feedforward_layernorm"),
            ("per_layer_post_norm", "ple_block.post_per_layer_input_norm"),
        ):
            assert np.array_equal(block[f"{mine}/scale"], theirs[f"{at}{name}.weight"])
        for mine, name in (
            ("mlp/gate", "mlp.gate_proj"),
            ("mlp/up", "mlp.up_proj"),
            ("mlp/down", "mlp.down_proj"),
            ("per_layer_gate", "ple_block.per_layer_input_gate"),
            ("per_layer_output", "ple_block.per_layer_projection"),
        ):
            assert np.array_equal(block[f"{mine}/kernel"], theirs[f"{at}{name}.weight"].T)
        assert np.array_equal(block["output_scale"], theirs[f"{at}layer_scalar"])
        projection = theirs["ple.per_layer_model_projection.weight"][9 * layer : 9 * layer + 9]
        assert np.array_equal(ours["encoder/stack/per_layer_input/kernel"][:, layer], projection.T)
    assert np.array_equal(ours["encoder/stack/per_layer_input/scale"], theirs["ple.per_layer_projection_norm.weight"])
    assert np.array_equal(ours["encoder/output/kernel"], theirs["embedding_projection.weight"].T)


def composite(root, **entries) -> None:
    """Makes a folder of texts, images and audio of one of texts."""

    def nest(config: dict) -> None:
        text = dict(config)
        config.clear()
        config.update(model_type="embedding_gemma2", text_config=text, **entries)

    edit(root / "config.json", nest)


def test_a_folder_with_parts_for_images_is_read_as_text_alone_with_a_note(folder):
    root = folder("embedding_gemma2_text")
    alone = sources.read(root)
    composite(root, vision_config={"model_type": "gemma4_vision"}, audio_config={"model_type": "gemma4_audio"})
    whole = sources.read(root)
    assert whole.module == alone.module
    (note,) = set(whole.notes) - set(alone.notes)
    assert note.startswith(
        f"{root / 'config.json'}: the parts of vision_config and audio_config are left out, and texts alone"
    )
    assert "a placeholder of an image" in note


def test_a_composite_folder_without_such_parts_has_a_note_of_placeholders(folder):
    root = folder("embedding_gemma2_text")
    composite(root, vision_config=None)
    (note,) = [note for note in sources.read(root).notes if "placeholder" in note]
    assert note.startswith(f"{root / 'config.json'}: texts alone are embedded")


def test_the_pooling_may_name_the_width_before_the_last_map(folder):
    """sentence-transformers takes the hidden size of config.json for that of the vectors."""
    root = folder("embedding_gemma2_text")
    for width in (12, 16):
        edit(root / "1_Pooling" / "config.json", word_embedding_dimension=width)
        assert sources.read(root).module.projection == (10,)
    edit(root / "1_Pooling" / "config.json", word_embedding_dimension=20)
    assert "word_embedding_dimension = 20, but the encoder is 12 wide" in error(root)
