"""ONNX exports: one file gives our vectors for any batch and any length, and `embed verify` notices damage."""

import json
import shutil

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from corruption import recommit
from onnx import numpy_helper
from parity_foreign import TEXTS, embed

from embed.inference import model as inference

TOLERANCE = 1e-5
NAMES = ["bert", "embeddinggemma"]
SLOW = ["modernbert", "qwen3", "xlm-roberta"]
# (texts, tokens): a single token, more texts than the traced two, far beyond every window, up to the longest text.
SIZES = [(1, 1), (1, 3), (5, 2), (3, 17), (2, 40), (9, 64)]
models = pytest.mark.parametrize("name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
    """exported(name) returns the ONNX folder of a tiny model."""
    found = {}

    def export(name: str):
        if name not in found:
            folder = tmp_path_factory.mktemp(f"onnx-{name}") / "export"
            assert embed("export", made(name).bundle, folder, "--format=onnx") == 0
            found[name] = folder
        return found[name]

    return export


def session(folder) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(folder / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])


def padded(rows, length: int, pad_id: int):
    """Returns int64 ids and mask [b, length]."""
    ids = np.full((len(rows), length), pad_id, np.int64)
    for row, tokens in zip(ids, rows):
        row[: len(tokens)] = tokens
    mask = np.arange(length) < np.array([len(tokens) for tokens in rows])[:, None]
    return ids, mask.astype(np.int64)


@models
def test_inputs_and_outputs(name, made, exported):
    runs = session(exported(name))
    assert [(i.name, i.type) for i in runs.get_inputs()] == [
        ("input_ids", "tensor(int64)"),
        ("attention_mask", "tensor(int64)"),
    ]
    # Names instead of numbers: both sizes are free.
    assert all(isinstance(size, str) for i in runs.get_inputs() for size in i.shape)
    assert [o.name for o in runs.get_outputs()] == ["sentence_embedding"]
    onnx.checker.check_model(str(exported(name) / "onnx" / "model.onnx"))


@models
def test_other_batches_and_lengths(name, made, exported, record_property):
    ours, runs = inference.open_model(made(name).bundle), session(exported(name))
    pad_id, random = ours.encoder.texts.tokenizer.pad_id, np.random.default_rng(5)
    batches = [
        [random.integers(4, 98, n) for n in (longest, *random.integers(1, longest + 1, texts - 1))]
        for texts, longest in SIZES
    ]
    ids, mask = padded([row for rows in batches for row in rows], 64, pad_id)
    expected = np.asarray(
        jax.jit(ours.encoder.model.apply)(
            ours.params, {"tokens": ids.astype(np.int32), "segment_ids": mask.astype(bool)}
        )
    )
    errors, start = {}, 0
    for size, rows in zip(SIZES, batches):
        ids, mask = padded(rows, size[1], pad_id)
        found = runs.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0]
        assert found.shape == (size[0], expected.shape[1]) and found.dtype == np.float32
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        errors[size] = float(np.max(np.abs(found - expected[start : start + size[0]])))
        start += size[0]
    record_property("largest_error", float(max(errors.values())))
    assert {size: error for size, error in errors.items() if not error <= TOLERANCE} == {}


@models
def test_texts_with_prompts(name, made, exported):
    ours, runs = inference.open_model(made(name).bundle), session(exported(name))
    tokens = ours.encoder.texts.tokens(TEXTS, "query")
    ids, mask = padded(tokens, max(map(len, tokens)), ours.encoder.texts.tokenizer.pad_id)
    found = runs.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0]
    assert np.max(np.abs(found - ours.encode(TEXTS, prompt="query"))) <= TOLERANCE


@models
def test_verify_passes(name, exported, capsys):
    assert embed("verify", exported(name)) == 0
    assert "in onnxruntime: token ids equal" in capsys.readouterr().out


def one_weight(folder):
    """Changes one value of the largest matrix but the token table."""
    path = folder / "onnx" / "model.onnx"
    proto = onnx.load(str(path))
    matrices = [t for t in proto.graph.initializer if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT]
    tensor = max((t for t in matrices if t.dims[0] < 100), key=lambda t: np.prod(t.dims))
    array = numpy_helper.to_array(tensor).copy()
    array.flat[7] += 0.25
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for left in folder.joinpath("onnx").iterdir():
        left.unlink()
    onnx.save(proto, str(path))


def other_tokens(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def prompt(folder):
    path = folder / "config_sentence_transformers.json"
    content = json.loads(path.read_text())
    content["prompts"]["query"] = "something else: "
    path.write_text(json.dumps(content))


DAMAGE = {"a weight": one_weight, "the vocabulary": other_tokens, "a prompt": prompt}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", NAMES)
def test_verify_fails_on_an_altered_folder(name, damage, exported, tmp_path, capsys):
    folder = shutil.copytree(exported(name), tmp_path / "export")
    DAMAGE[damage](folder)
    assert embed("verify", folder) == 65
    recommit(folder)
    assert embed("verify", folder) == 70
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("embed: ")


def test_verify_says_when_the_file_is_not_a_model(exported, tmp_path, capsys):
    folder = shutil.copytree(exported("bert"), tmp_path / "export")
    path = folder / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    recommit(folder)
    assert embed("verify", folder) == 65
    assert "onnxruntime cannot read it" in capsys.readouterr().err
