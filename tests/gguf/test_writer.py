"""The file that is written: types of tensors, values to the bit, metadata, notes, and what does not fit."""

import dataclasses
import json
import types

import gguf
import gguf_models
import numpy as np
import pytest
import tiny_models
from gguf_models import MODELS

from embed import trees
from embed.errors import DataError
from embed.gguf import writer
from embed.inference import weights
from embed.interop import origin

NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}


@pytest.fixture(scope="module")
def write(bundle, tmp_path_factory):
    """write(name, dtype, read) -> (folder, what the gguf package reads there); `read` replaces the parameters."""

    def run(name: str, dtype: str, read=None) -> types.SimpleNamespace:
        folder = tmp_path_factory.mktemp("written")
        trained = origin.open_trained(bundle(name))
        plan = writer.make_plan(dataclasses.replace(trained, read=read or trained.read), dtype)
        writer.write(folder, plan)
        reader = gguf.GGUFReader(folder / writer.FILE)
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        metadata = {key: field.contents() for key, field in reader.fields.items()}
        return types.SimpleNamespace(folder=folder, plan=plan, tensors=tensors, metadata=metadata)

    return run


def values(tensor) -> np.ndarray:
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NAMES)
def test_matrices_have_the_type_and_the_rest_is_float32(dtype, write):
    written = write("bert", dtype)
    kinds = {name: tensor.tensor_type.name for name, tensor in written.tensors.items()}
    matrices = {
        name for name in kinds if name.startswith(("blk.", "token_embd.")) and "norm" not in name and "bias" not in name
    }
    assert {kinds[name] for name in matrices} == {NAMES[dtype]} and len(matrices) == 1 + 2 * 6
    assert {kinds[name] for name in kinds.keys() - matrices} == {"F32"}
    assert {"position_embd.weight", "token_types.weight", "blk.1.attn_q.bias"} <= kinds.keys() - matrices
    assert (
        written.metadata["general.file_type"]
        == gguf.LlamaFileType[f"{'ALL' if dtype == 'float32' else 'MOSTLY'}_{NAMES[dtype]}"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["q8_0", "q4_0"])
def test_rows_that_no_block_fits_stay_float16_and_are_listed(dtype, write):
    written = write("poor bert", dtype)
    kinds = {name: tensor.tensor_type.name for name, tensor in written.tensors.items()}
    assert kinds["token_embd.weight"] == kinds["blk.0.ffn_up.weight"] == "F16"  # rows of 48
    assert kinds["blk.0.ffn_down.weight"] == NAMES[dtype]  # rows of 96
    (note,) = [note for note in written.plan.notes() if "float16" in note]
    assert note == (
        "rows that are no multiple of 32 numbers stay float16: blk.0.attn_k.weight, blk.0.attn_output.weight, "
        "blk.0.attn_q.weight, blk.0.attn_v.weight and 7 more"
    )
    assert not any("float16" in note for note in write("bert", dtype).plan.notes())
    assert not any("float16:" in note for note in write("poor bert", "float16").plan.notes())


@pytest.mark.slow
def test_kernels_lie_as_transformers_has_them(write):
    """[out, in], heads one after the other; ModernBERT's queries, keys and values in one, and the two halves of its MLP."""
    written, parameters = write("gemma", "float32"), gguf_models.parameters(MODELS["gemma"][0])
    tensor = lambda name: values(written.tensors[name])  # noqa: E731
    ours = lambda path, layer: parameters[f"encoder/stack/layers/{path}"][layer]  # noqa: E731
    query, output = ours("attention/query/kernel", 1), ours("attention/output/kernel", 1)
    for head in range(4):
        assert np.array_equal(tensor("blk.1.attn_q.weight")[32 * head : 32 * (head + 1)], query[:, head].T)
        assert np.array_equal(tensor("blk.1.attn_output.weight")[:, 32 * head : 32 * (head + 1)], output[head].T)
    assert np.array_equal(tensor("blk.2.ffn_gate.weight"), ours("mlp/gate/kernel", 2).T)
    assert np.array_equal(tensor("blk.2.post_ffw_norm.weight"), ours("mlp_post_norm/scale", 2) + np.float32(1))
    assert np.array_equal(tensor("dense_2.weight"), parameters["projection_0/kernel"].T)
    assert np.array_equal(tensor("dense_3.weight"), parameters["projection_1/kernel"].T)
    entries = {key.rpartition(".")[2]: value for key, value in written.metadata.items() if ".dense_" in key}
    assert entries == {"dense_2_feat_in": 64, "dense_2_feat_out": 96, "dense_3_feat_in": 96, "dense_3_feat_out": 64}
    written, parameters = write("modernbert", "float32"), gguf_models.parameters(MODELS["modernbert"][0])
    parts = [ours(f"attention/{name}/kernel", 3).reshape(64, 64).T for name in ("query", "key", "value")]
    assert np.array_equal(tensor("blk.3.attn_qkv.weight"), np.concatenate(parts))
    halves = [ours(f"mlp/{name}/kernel", 0).T for name in ("gate", "up")]
    assert np.array_equal(tensor("blk.0.ffn_up.weight"), np.concatenate(halves))
    assert "blk.0.attn_norm.weight" not in written.tensors and "blk.1.attn_norm.weight" in written.tensors


@pytest.mark.slow
def test_positions_begin_at_a_texts_first(write):
    written = write("xlm-roberta", "float16")
    table = gguf_models.parameters(MODELS["xlm-roberta"][0])["encoder/position_embedding/table"]
    assert np.array_equal(values(written.tensors["position_embd.weight"]), table[2:])
    assert written.metadata["bert.context_length"] == gguf_models.LENGTH


def on_grid(shape: tuple[int, ...], draw, lowest: int, highest: int, sure: int) -> np.ndarray:
    """Returns values in blocks of 32 along the last axis, each q * scale with a float16 scale and one q of `sure`."""
    blocks = draw.integers(lowest, highest + 1, (*shape[:-1], shape[-1] // 32, 32))
    blocks[..., 5] = sure
    scales = (draw.uniform(0.001, 0.02, (*blocks.shape[:-1], 1))).astype(np.float16).astype(np.float32)
    return (blocks * scales).reshape(shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "grid"), [("q4_0", (-8, 7, -8)), ("q8_0", (-127, 127, 127))])
def test_values_on_the_grid_are_kept_to_the_bit(dtype, grid, write):
    """Weights trained for four or eight bits already are what the file can hold; their blocks lie along the inputs."""
    draw, module = np.random.default_rng(0), MODELS["qwen3"][0]
    parameters = gguf_models.parameters(module)
    for path, array in parameters.items():
        if path.endswith("kernel"):  # [layer, in..., out...]
            inputs = array.shape[1:3] if "output" in path else array.shape[1:2]
            outputs = array.shape[1 + len(inputs) :]
            rows = on_grid((array.shape[0], int(np.prod(outputs)), int(np.prod(inputs))), draw, *grid)
            parameters[path] = rows.swapaxes(1, 2).reshape(array.shape)
        elif path.endswith("table"):
            parameters[path] = on_grid(array.shape, draw, *grid)
    written = write("qwen3", dtype, parameters.__getitem__)
    expected = dict(written.plan.tensors())
    for name, tensor in written.tensors.items():
        assert tensor.tensor_type.name == ("F32" if "norm" in name else NAMES[dtype])
        assert values(tensor).tobytes() == expected[name].tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gemma", "modernbert", "qwen3"])
@pytest.mark.parametrize(("dtype", "kind"), [("q4_0", "int4_blocks"), ("q8_0", "int8_blocks")])
def test_weights_of_a_quantised_model_are_kept_to_the_bit(name, dtype, kind, write):
    module = MODELS[name][0]
    params = trees.unflatten(gguf_models.parameters(module))
    rounded = trees.flatten(weights.rounded(params, kind, tiny_models.build(module).axes))
    written = write(name, dtype, lambda path: np.asarray(rounded[path]))
    expected = dict(written.plan.tensors())
    for tensor in written.tensors.values():
        assert np.array_equal(values(tensor), expected[tensor.name]), tensor.name


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "largest"), [("float16", 65504), ("q8_0", 127 * 65504), ("q4_0", 8 * 65504)])
def test_values_that_the_type_cannot_hold_are_refused(dtype, largest, write):
    def read(path):
        array = gguf_models.parameters(MODELS["bert"][0])[path]
        if path.endswith("mlp/down/kernel"):
            array[1, 3, 2] = largest * 1.01
        return array

    with pytest.raises(DataError) as caught:
        write("bert", dtype, read)
    message = f"blk.1.ffn_down.weight holds {largest * 1.01:.3g}, more than {NAMES[dtype]} can"
    assert str(caught.value).endswith(f"bert: {message}; export with --dtype=float32, or bfloat16")
    write("bert", "bfloat16", read)


def test_values_that_are_not_finite_are_refused(write):
    read = lambda path: np.full_like(gguf_models.parameters(MODELS["bert"][0])[path], np.nan)  # noqa: E731
    with pytest.raises(DataError, match="holds nan, more than F32 can"):
        write("bert", "float32", read)


@pytest.mark.slow
def test_prompts_and_what_else_a_user_must_know_are_entries(write):
    written = write("gemma", "q8_0")
    mine = {
        key: value for key, value in written.metadata.items() if key.startswith(("sentence_transformers.", "embed."))
    }
    prompts = {key.rpartition(".")[2]: mine.pop(key) for key in list(mine) if ".prompts." in key}
    assert prompts["query"] == prompts["Retrieval-query"] == "find: " and prompts["document"] == ""
    assert mine == {
        "sentence_transformers.max_seq_length": gguf_models.LENGTH,
        "sentence_transformers.matryoshka_dimensions": [64, 32],
        "sentence_transformers.similarity_fn_name": "cosine",
        "embed.text_normalization": "none",
        "embed.model": written.plan.trained.digest,
    }
    assert written.metadata["general.name"] == "gemma" and written.metadata["general.quantization_version"] == 2
    assert written.metadata["gemma-embedding.pooling_type"] == gguf.PoolingType.MEAN
    assert {path.name for path in written.folder.iterdir()} == {"model.gguf", "model.json", "tokenizer.json"}
    assert "architecture" not in json.loads((written.folder / "model.json").read_text())


def test_a_default_prompt_is_an_entry(bundle):
    trained = origin.open_trained(bundle("bert"))
    trained.description["default_prompt_name"] = "query"
    assert writer.make_plan(trained, "float32").metadata()["sentence_transformers.default_prompt_name"] == "query"


def test_notes_say_what_a_user_does_for_llama_cpp(bundle):
    trained = origin.open_trained(bundle("gemma with one map"))
    prompt, cut = (
        "put a prompt before each text yourself; llama.cpp does not, though the file names the prompts",
        f"cut texts at {gguf_models.LENGTH} tokens; llama.cpp refuses longer ones, or drops their last token",
    )
    lost = "characters that the vocabulary lacks are the unknown token in llama.cpp, and bytes in the trained model"
    assert writer.make_plan(trained, "float16").notes() == [lost, prompt, cut]
    trained.description["text_normalization"] = "NFC, strip"
    cleaning = [
        "bring texts to Unicode's NFC first; llama.cpp does not",
        "remove white space at the ends of texts first; llama.cpp does not",
    ]
    assert writer.make_plan(trained, "float16").notes() == [*cleaning, lost, prompt, cut]
    # A note is said once, though tokenizer and model both ask for it.
    trained = origin.open_trained(bundle("qwen3"))
    trained.description["text_normalization"] = "NFC, strip"
    assert writer.make_plan(trained, "float16").notes() == [*cleaning, prompt, cut]
