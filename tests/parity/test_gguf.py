"""GGUF files in llama.cpp itself: the same token ids, and the vectors that our model makes with the same weights.

Needs llama.cpp's Python package, which is built where it is installed: pip install llama-cpp-python gguf
"""

import dataclasses

import gguf_models
import numpy as np
import pytest
from parity_foreign import embed

from embed.gguf import reader, writer
from embed.inference import model as inference
from embed.interop import origin, parity

DTYPES = ("float16", "q8_0", "q4_0")


@pytest.fixture(autouse=True)
def llama_cpp():
    """The package, or a reason why the test is not run."""
    pytest.importorskip("gguf", reason="gguf is not installed")
    return pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (it compiles llama.cpp)")


def compare(bundle, folder, dtype: str, llama_cpp) -> None:
    """Asserts that llama.cpp reads every text that is said to be repeated as our model does, and no other."""
    trained = origin.open_trained(bundle)
    plan = writer.make_plan(trained, dtype)
    folder.mkdir()
    writer.write(folder, plan)
    path, encoder = folder / writer.FILE, inference.open_model(bundle).encoder.texts
    texts = (*parity.TEXTS, "word0 word1 word2 " * 8)
    ids = [row.tolist() for row in encoder.tokens(texts, "{content}")]
    kept = [i for i, row in enumerate(ids) if len(row) < trained.max_length]
    repeated = [i for i in kept if plan.vocabulary.is_repeated(texts[i], ids[i])]
    theirs = reader.llama_tokens(path, texts)
    assert len(repeated) >= 12 and [i for i in kept if theirs[i] == ids[i]] == repeated
    sizes = dict.fromkeys(("n_ctx", "n_batch", "n_ubatch"), trained.max_length)
    llama = llama_cpp.Llama(str(path), embedding=True, verbose=False, **sizes)
    vectors = np.array([llama.embed(texts[i], normalize=True, truncate=False) for i in repeated])
    expected = reader.vectors(path, [ids[i] for i in repeated])
    distances = parity.distances(vectors, expected)
    assert distances.max() <= reader.LLAMA_TOLERANCE[dtype], distances


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", gguf_models.MODELS)
def test_tiny_models_of_every_family(name, dtype, llama_cpp, tmp_path):
    compare(gguf_models.write(tmp_path, name), tmp_path / "gguf", dtype, llama_cpp)


@pytest.mark.parametrize("kind", gguf_models.VOCABULARIES)
def test_every_kind_of_vocabulary(kind, llama_cpp, tmp_path, monkeypatch):
    name = "gemma" if kind != "word pieces" else "bert"
    monkeypatch.setitem(gguf_models.MODELS, name, (gguf_models.MODELS[name][0], kind))
    compare(gguf_models.write(tmp_path, name), tmp_path / "gguf", "float32", llama_cpp)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("bert", "norm_eps", 0.1), ("gemma", "window", 5), ("gemma", "global_rope_scale", 1.0), ("modernbert", "activation", "silu"),
     ("modernbert", "local_rope_base", 300.0), ("qwen3", "rope_base", 500.0), ("modernbert", "global_every", 2)],
)  # fmt: skip
def test_fields_that_change_vectors(name, field, value, llama_cpp, tmp_path, monkeypatch):
    module, kind = gguf_models.MODELS[name]
    changed = dataclasses.replace(module, encoder=dataclasses.replace(module.encoder, **{field: value}))
    monkeypatch.setitem(gguf_models.MODELS, name, (changed, kind))
    compare(gguf_models.write(tmp_path, name), tmp_path / "gguf", "float32", llama_cpp)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_minilm(dtype, minilm, llama_cpp, tmp_path, capsys):
    assert embed("convert", minilm, tmp_path / "bundle") == 0
    assert embed("export", tmp_path / "bundle", tmp_path / "out", "--format=gguf", f"--dtype={dtype}") == 0
    capsys.readouterr()
    assert embed("verify", tmp_path / "out") == 0
    assert "in llama.cpp: token ids equal" in capsys.readouterr().out
