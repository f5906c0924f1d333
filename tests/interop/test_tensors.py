"""Tensors: their foreign names, shapes and layout against tables and loops by hand, and every kind of damaged weights."""

import json
import pickle

import numpy as np
import pytest
import safetensors.numpy

from embed.errors import DataError
from embed.interop import tensors

FAMILIES = ("bert", "xlm-roberta", "gemma3_text", "embedding_gemma2_text", "t5gemma", "modernbert", "qwen3")


H, G, K = 4, 2, 6


@pytest.mark.parametrize("family", FAMILIES)
def test_foreign_names_and_shapes_are_those_of_the_public_layout(family, read, foreign):
    source, _, ours = read(family)
    shapes = {p.removeprefix("encoder/"): x.shape for p, x in ours.items()}
    layers = source.module.encoder.num_layers
    table = source.family.tensors_of(source.module.encoder)
    found = tensors.foreign_shapes(table, shapes, layers)
    assert {source.family.write_prefix + name: shape for name, shape in found.items()} == foreign.SHAPES[family]


@pytest.mark.parametrize("family", ("gemma3_text", "t5gemma", "qwen3"))
def test_attention_of_decoders_splits_heads(family, read):
    source, theirs, ours = read(family)
    at = source.family.write_prefix + "layers.1.self_attn."
    kernel = lambda name: ours[f"encoder/stack/layers/attention/{name}/kernel"][1]  # noqa: E731
    for their, name, heads in (("q", "query", H), ("k", "key", G), ("v", "value", G)):
        assert kernel(name).shape == (12, heads, K)
        for d in range(12):
            for h in range(heads):
                for k in range(K):
                    assert kernel(name)[d, h, k] == theirs[f"{at}{their}_proj.weight"][h * K + k, d]
    assert kernel("output").shape == (H, K, 12)
    for d in range(12):
        for h in range(H):
            for k in range(K):
                assert kernel("output")[h, k, d] == theirs[f"{at}o_proj.weight"][d, h * K + k]


@pytest.mark.parametrize("family", ("gemma3_text", "t5gemma", "qwen3"))
def test_the_rest_of_a_decoder_block(family, read):
    source, theirs, ours = read(family)
    prefix, at = source.family.write_prefix, source.family.write_prefix + "layers.1."
    assert np.array_equal(ours["encoder/embedding/table"], theirs[f"{prefix}embed_tokens.weight"])
    assert np.array_equal(ours["encoder/final_norm/scale"], theirs[f"{prefix}norm.weight"])
    for name in ("gate", "up", "down"):
        kernel = ours[f"encoder/stack/layers/mlp/{name}/kernel"][1]
        for i in range(kernel.shape[0]):
            for o in range(kernel.shape[1]):
                assert kernel[i, o] == theirs[f"{at}mlp.{name}_proj.weight"][o, i]
    norms = {
        "gemma3_text": {
            "attention_norm": "input_layernorm",
            "attention_post_norm": "post_attention_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
            "attention/query_norm": "self_attn.q_norm",
            "attention/key_norm": "self_attn.k_norm",
        },
        "t5gemma": {
            "attention_norm": "pre_self_attn_layernorm",
            "attention_post_norm": "post_self_attn_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        },
        "qwen3": {
            "attention_norm": "input_layernorm",
            "mlp_norm": "post_attention_layernorm",
            "attention/query_norm": "self_attn.q_norm",
            "attention/key_norm": "self_attn.k_norm",
        },
    }
    for name, their in norms[family].items():
        assert np.array_equal(ours[f"encoder/stack/layers/{name}/scale"][1], theirs[f"{at}{their}.weight"]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_join_undoes_split_to_the_bit(family, read):
    source, theirs, ours = read(family)
    shapes = {p.removeprefix("encoder/"): x.shape for p, x in ours.items()}
    table, layers = source.family.tensors_of(source.module.encoder), source.module.encoder.num_layers
    back = dict(tensors.foreign_tensors(table, shapes, layers, lambda p: ours[f"encoder/{p}"]))
    assert list(back) == list(tensors.foreign_shapes(table, shapes, layers))
    for name, array in back.items():
        original = theirs[source.family.write_prefix + name]
        assert array.shape == original.shape and array.tobytes() == original.tobytes(), name


@pytest.fixture
def damaged(foreign, refused, tmp_path):
    """damaged(change) writes a BERT whose tensors `change` has edited, and returns the refusal."""

    def run(change) -> str:
        theirs = foreign.draw(foreign.SHAPES["bert"])
        change(theirs)
        return refused(foreign.write_folder(tmp_path / "theirs", "bert", theirs))

    return run


QUERY = "encoder.layer.1.attention.self.query.weight"


def test_a_missing_tensor(damaged):
    err = damaged(lambda theirs: theirs.pop(QUERY))
    assert f"theirs: its tensors are not those of its configuration: missing {QUERY}; get the whole checkpoint" in err


def test_an_unknown_tensor(damaged):
    err = damaged(lambda theirs: theirs.update({"encoder.layer.0.adapter.weight": np.ones(3, np.float32)}))
    assert "unknown encoder.layer.0.adapter.weight; get the whole checkpoint, with its own config.json" in err


def test_a_layer_more_than_the_configuration_says(damaged):
    extra = "encoder.layer.2.output.dense.bias"
    assert f"unknown {extra};" in damaged(lambda theirs: theirs.update({extra: np.ones(12, np.float32)}))


def test_a_wrong_shape(damaged):
    err = damaged(lambda theirs: theirs.update({QUERY: np.ones((24, 12), np.float32)}))
    assert f"shapes {QUERY} is [24, 12], the configuration says [12, 12];" in err


def test_a_transposed_tensor_is_not_turned_round(damaged):
    name = "encoder.layer.0.intermediate.dense.weight"
    err = damaged(lambda theirs: theirs.update({name: np.ascontiguousarray(theirs[name].T)}))
    assert f"{name} is [12, 20], the configuration says [20, 12]" in err


def test_all_differences_are_one_error(damaged):
    def change(theirs):
        del theirs[QUERY], theirs["embeddings.LayerNorm.bias"]
        theirs["more"] = theirs["other"] = np.ones(1, np.float32)
        theirs["embeddings.LayerNorm.weight"] = np.ones(13, np.float32)

    err = damaged(change)
    assert f"missing embeddings.LayerNorm.bias, {QUERY}; unknown more, other; shapes embeddings.LayerNorm.weight" in err


def test_a_long_list_is_counted(damaged):
    err = damaged(lambda theirs: theirs.update({f"x{i:02}": np.ones(1, np.float32) for i in range(30)}))
    assert "x11 and 18 more;" in err and "x12" not in err


@pytest.mark.parametrize(
    ("dtype", "value", "why"),
    [(np.float16, np.inf, "float16 overflowed"), (np.float32, np.nan, "; get the"), (np.float32, -np.inf, "; get the")],
)
def test_values_that_are_not_finite(dtype, value, why, damaged):
    def change(theirs):
        theirs[QUERY] = theirs[QUERY].astype(dtype)
        theirs[QUERY][3, 5] = value

    err = damaged(change)
    assert f"{QUERY} holds values that are not finite" in err and why in err and "float32 or bfloat16 weights" in err


def test_a_double_that_float32_cannot_hold(damaged):
    assert f"{QUERY} holds values that are not finite" in damaged(lambda t: t.update({QUERY: np.full((12, 12), 1e300)}))


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_quantised_tensors(kind, damaged):
    err = damaged(lambda theirs: theirs.update({QUERY: np.ones((12, 12), kind)}))
    assert f"{QUERY} is stored as" in err and "quantised weights cannot be trained, get the float ones" in err


class Boom:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_pickle_is_refused_unopened(name, foreign, refused, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Boom(tmp_path / "boom")))
    err = refused(folder)
    assert f"only has {name}, a pickle" in err and "safe_serialization=True" in err
    assert not (tmp_path / "boom").exists()


def test_no_weights_at_all(foreign, refused, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs")
    (folder / "model.safetensors").unlink()
    err = refused(folder)
    assert "theirs: holds no model.safetensors" in err and "point to a folder with safetensors weights" in err


@pytest.mark.parametrize("left", [0, 300, -1])
def test_a_truncated_file(left, foreign, refused, tmp_path):
    path = foreign.write_folder(tmp_path / "theirs") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    err = refused(path.parent)
    assert f"{path}: not a whole safetensors file" in err and "download or copy it again" in err


INDEX = "model.safetensors.index.json"


BROKEN_INDEX = {
    "not JSON": "{",
    "no map": "{}",
    "a list": "[]",
    "a map that is a list": '{"weight_map": ["model.safetensors"]}',
    "a map of numbers": '{"weight_map": {"a": 3}}',
    "a map of lists": '{"weight_map": {"a": ["model.safetensors"]}}',
    "empty": "",
    "bytes": b"\xff\xfe",
}


@pytest.mark.parametrize("kind", BROKEN_INDEX)
def test_a_broken_index(kind, tmp_path):
    content = BROKEN_INDEX[kind]
    (tmp_path / INDEX).write_bytes(content if isinstance(content, bytes) else content.encode())
    advice = "not an index of safetensors files; download it again|not valid JSON|expected object, got a list"
    with pytest.raises(DataError, match=f"{INDEX}: ({advice})"):
        tensors.Reader(tmp_path)


def test_a_broken_index_at_the_command_line(foreign, refused, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs")
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text('{"weight_map": 3}')
    assert f"{folder / INDEX}: not an index of safetensors files; download it again" in refused(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model-00002-of-00002.safetensors", "lacks model-00002-of-00002.safetensors; download the folder again"),
        ("../model.safetensors", "names files outside the folder: ../model.safetensors"),
        ("/etc/passwd", "names files outside the folder: /etc/passwd"),
    ],
)
def test_an_index_of_files_that_are_not_there(name, message, foreign, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = dict.fromkeys(foreign.SHAPES["bert"], "model-00001-of-00002.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {**names, QUERY: name}}))
    with pytest.raises(DataError) as e:
        tensors.Reader(folder)
    assert f"{folder / INDEX}: {message}" in str(e.value)


def test_a_missing_shard_at_the_command_line(foreign, refused, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs")
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {QUERY: "model-00002-of-00002.safetensors"}}))
    assert f"{folder / INDEX}: lacks model-00002-of-00002.safetensors; download the folder again" in refused(folder)


def test_a_damaged_linear_map_names_its_own_file(foreign, refused, tmp_path):
    folder = foreign.write_folder(tmp_path / "theirs")
    foreign.add_modules(folder, dense=(14, 10))
    path = folder / "3_Dense" / "model.safetensors"
    safetensors.numpy.save_file(foreign.draw({"linear.weight": (10, 14), "linear.bias": (10,)}), path)
    assert "3_Dense: its tensors are not those of its configuration: unknown linear.bias;" in refused(folder)
    safetensors.numpy.save_file(foreign.draw({"linear.weight": (14, 10)}), path)
    assert "shapes linear.weight is [14, 10], the configuration says [10, 14]" in refused(folder)
