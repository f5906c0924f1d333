"""Files read back: the model with its weights as they are stored gives the trained vectors, within the tolerance of their type."""

import pathlib
import shutil
import sys
import types

import gguf
import gguf_models
import jax
import numpy as np
import pytest
import tiny_models
from gguf_models import MODELS

from embed import trees
from embed.errors import DataError, UsageError
from embed.gguf import reader, writer
from embed.interop import origin, parity

FEW = [name if name in ("bert", "gemma") else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


@pytest.fixture(scope="module")
def written(bundle, tmp_path_factory):
    """written(name, dtype) -> the GGUF file of a tiny model, each once and not to be changed."""
    paths: dict[tuple[str, str], pathlib.Path] = {}

    def run(name: str, dtype: str = "float32") -> pathlib.Path:
        if (name, dtype) not in paths:
            folder = tmp_path_factory.mktemp("written")
            writer.write(folder, writer.make_plan(origin.open_trained(bundle(name)), dtype))
            paths[name, dtype] = folder / writer.FILE
        return paths[name, dtype]

    return run


TOKENS = [list(range(5, 5 + n)) for n in (1, 7, 32, 60, 64)]


def trained_vectors(name: str) -> np.ndarray:
    """Returns the vectors of the random model itself."""
    module, _ = MODELS[name]
    apply = jax.jit(tiny_models.build(module).apply)
    params = trees.unflatten(gguf_models.parameters(module))
    tokens, mask = np.zeros((len(TOKENS), 64), np.int32), np.zeros((len(TOKENS), 64), bool)
    for row, ids in enumerate(TOKENS):
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True
    return np.asarray(apply(params, {"tokens": tokens, "segment_ids": mask}))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_vectors_are_the_trained_models_within_the_tolerance_of_the_type(name, written):
    expected = trained_vectors(name)
    assert np.std(expected, axis=0).max() > 0.05
    for dtype in ("float32", "float16", "q8_0", "q4_0"):
        distances = parity.distances(reader.vectors(written(name, dtype), TOKENS), expected)
        assert distances.max() <= parity.COSINE_TOLERANCE[dtype], (dtype, distances)
        if dtype == "q4_0":
            assert distances.max() >= 1e-3, "four bits lose something"


@pytest.mark.slow
def test_texts_as_long_as_the_table_of_positions_are_run(written):
    vectors = reader.vectors(written("bert"), [[5] * gguf_models.LENGTH])
    assert vectors.shape == (1, 64) and np.linalg.norm(vectors) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_parameters_in_float32_come_back(name, written):
    module, params = reader.read(written(name))
    expected = gguf_models.parameters(MODELS[name][0])
    assert set(params) == set(expected) and module.pooling == MODELS[name][0].pooling
    for path, array in expected.items():
        if path == "encoder/position_embedding/table":
            array = array[MODELS[name][0].encoder.position_offset :]
        if name == "modernbert" and path.endswith("attention_norm/scale"):
            array = np.concatenate([np.ones_like(array[:1]), array[1:]])  # the first layer has none
        atol = 2e-7 if name.startswith("gemma") and path.endswith("scale") else 0  # one was added to them
        np.testing.assert_allclose(params[path], array, rtol=0, atol=atol, err_msg=path)


@pytest.mark.slow
def test_types_shapes_and_prompts_of_a_file(written):
    tensors = reader.Tensors(written("poor bert", "q4_0"))
    assert tensors.types()["token_embd.weight"] == "F16" and tensors.types()["blk.0.ffn_down.weight"] == "Q4_0"
    assert tensors.shape("blk.0.ffn_down.weight") == tensors.read("blk.0.ffn_down.weight").shape == (48, 96)
    prompts = reader.prompts(written("bert"))
    assert prompts["query"] == "find: {content}" and prompts["document"] == "{content}"


def test_a_file_that_is_cut_or_none_is_bad_data(written, tmp_path):
    path = tmp_path / "model.gguf"
    content = written("bert").read_bytes()
    for part in (content[: len(content) // 2], content[:200], b"", b"GGUF and something else"):
        path.write_bytes(part)
        with pytest.raises(DataError) as caught:
            reader.read(path)
        line = str(caught.value)
        assert line.startswith(f"{path}: not a whole GGUF file (") and line.endswith("export the model again")
        assert "\n" not in line
    with pytest.raises(DataError, match="not a whole GGUF file"):
        reader.read(tmp_path / "nowhere.gguf")


def rewritten(path: pathlib.Path, output: pathlib.Path, without: str = "", **changed) -> pathlib.Path:
    """Writes a file of the same tensors but for one, with entries changed or, where None, left out."""
    source = reader.Tensors(path)
    made = gguf.GGUFWriter(output, changed.pop("architecture", source.metadata["general.architecture"]))
    for key, value in source.metadata.items():
        name = key.rpartition(".")[2]
        if key.startswith("GGUF.") or key == "general.architecture" or changed.get(name, value) is None:
            continue
        writer._add(made, key, changed.get(name, value))
    for name in source.names():
        if name != without:
            made.add_tensor(name, source.read(name))
    made.write_header_to_file()
    made.write_kv_data_to_file()
    made.write_tensors_to_file()
    made.close()
    return output


@pytest.mark.slow
def test_a_file_of_something_else_is_bad_data(written, tmp_path):
    path = written("bert")
    assert reader.read(rewritten(path, tmp_path / "same.gguf"))[0] == reader.read(path)[0]
    wrong = {
        "another": {"architecture": "llama"},
        "no pooling": {"pooling_type": None},
        "a classifier": {"pooling_type": 4},
        "no heads": {"head_count": None},
    }
    for name, change in wrong.items():
        made = rewritten(path, tmp_path / f"{name}.gguf", **change)
        with pytest.raises(
            DataError, match="its metadata is not that of an export .*; export the model again"
        ) as caught:
            reader.read(made)
        assert str(caught.value).startswith(str(made)) and "\n" not in str(caught.value)
    made = rewritten(path, tmp_path / "missing.gguf", without="blk.1.ffn_up.bias")
    with pytest.raises(DataError, match="missing blk.1.ffn_up.bias"):
        reader.read(made)
    made = rewritten(path, tmp_path / "layers.gguf", block_count=1)
    with pytest.raises(DataError, match="unknown blk.1.attn_k.bias"):
        reader.read(made)


def test_without_the_package_the_extra_is_named(written, monkeypatch):
    path = written("bert")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"this needs gguf; run: pip install 'embed\[gguf\]'"):
        reader.read(path)


def test_llama_cpp_is_asked_for_special_tokens_too(written, monkeypatch, tmp_path):
    class Llama:
        def __init__(self, path, verbose):
            assert path == str(tmp_path / "a.gguf") and not verbose

        def tokenize(self, text: bytes, special: bool) -> list[int]:
            assert special
            return list(text)

    monkeypatch.setitem(sys.modules, "llama_cpp", types.SimpleNamespace(Llama=Llama))
    shutil.copy(written("bert"), tmp_path / "a.gguf")
    assert reader.llama_tokens(tmp_path / "a.gguf", ["ab", "é"]) == [[97, 98], [195, 169]]
