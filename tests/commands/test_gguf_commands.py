"""export --format=gguf and verify at the command line; llama.cpp's Python package is a stand-in here."""

import importlib.util
import json
import shutil
import sys
import types

import gguf
import gguf_models
import numpy as np
import pytest
import tiny_models

from embed import bundles, checkpoints, files, trees
from embed.commands.main import main
from embed.gguf import reader, writer
from embed.inference import model as inference
from embed.interop import parity
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.pooling import MeanPooling
from embed.models.t5gemma import T5GemmaEncoder


@pytest.fixture(autouse=True)
def no_llama(monkeypatch):
    """What is installed here must not matter."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "llama_cpp" else find(name, *more)
    )


@pytest.fixture
def call(capsys):
    """Runs `embed` in this process: call(arguments) -> (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as e:
            main([str(a) for a in arguments])
        out = capsys.readouterr()
        return e.value.code, out.out, out.err

    return run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The bundle of a tiny BERT, and its export in q8_0 with what was printed; neither is to be changed."""
    folder = tmp_path_factory.mktemp("folders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "build", tiny_models.build)
        bundle = gguf_models.write(folder, "bert", normalization="NFC, strip")
        patch.setattr(parity, "TEXTS", (*parity.TEXTS[:3], parity.TEXTS[-2], "서울은"))
        with pytest.raises(SystemExit) as caught:
            main(["export", str(bundle), str(folder / "out"), "--format=gguf", "--dtype=q8_0"])
    assert caught.value.code == 0
    return types.SimpleNamespace(bundle=bundle, export=folder / "out")


@pytest.fixture
def copy(folders, tmp_path):
    """A copy of the export, to be changed."""
    return shutil.copytree(folders.export, tmp_path / "copy")


def commit(folder) -> None:
    """Makes the manifest one of what the folder holds now, as who tampers with a folder would."""
    (folder / files.MANIFEST).unlink()
    files.write_manifest(folder)


@pytest.mark.slow
def test_an_export_says_what_to_do_and_what_is_lost(folders, call, tmp_path):
    code, out, err = call("export", folders.bundle, tmp_path / "out", "--format=gguf", "--dtype=float16")
    assert code == 0, err
    notes = [line.removeprefix("note       ") for line in out.splitlines() if line.startswith("note")]
    assert [note.split()[0] for note in notes] == ["bring", "remove", "llama.cpp", "llama.cpp", "put", "cut", "weights"]
    loss = notes[-1].split("cosine distance of ")[1]
    assert 0 <= float(loss.split()[0]) <= float(loss.split()[-3]) < 1e-5
    assert out.splitlines()[-1].endswith(f"prove it: embed verify {tmp_path / 'out'}")
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(f"- {note}.\n" in card for note in notes)
    assert "def open_gguf(folder, prompted):" in card and "def prompted(prompt, text):" in card
    assert "open_gguf('out', prompted)('What is the capital of France?', prompt='find: ')" in card
    length = gguf_models.LENGTH
    assert f"`llama-server --embedding -m model.gguf -c {length} -b {length} -ub {length}` serves the file" in card
    assert files.verify_manifest(tmp_path / "out")["form"] == "gguf"


@pytest.mark.slow
def test_texts_are_those_that_llama_cpp_reads_alike(folders):
    checks, content = parity.read(folders.export)
    assert (content["dtype"], content["measure"], content["tolerance"]) == ("q8_0", "cosine distance", 1e-2)
    assert "서울은" not in {check.text for check in checks}, "its accents are stripped otherwise"
    assert any(check.text.startswith("Cafe\u0301") for check in checks), "the code of the card brings it to NFC"
    longest = max(checks, key=lambda check: len(check.token_ids))
    assert longest.text.startswith("word0 ") and 100 < len(longest.token_ids) < gguf_models.LENGTH, "none is cut"
    vectors = inference.open_model(folders.bundle).encode([checks[1].text], prompt="query")
    assert np.max(np.abs(checks[1].vector - vectors[0])) <= 1e-6, "they are the trained model's"


@pytest.mark.slow
def test_verify_runs_the_weights_of_the_file(folders, call):
    code, out, err = call("verify", folders.export)
    assert code == 0, err
    first, second = out.splitlines()
    assert first.startswith(f"{folders.export}: 10 texts in gguf: largest cosine distance ")
    assert 1e-5 < float(first.split("distance ")[1].split()[0]) < 1e-2 and first.endswith("(tolerance 1e-02)")
    assert second.endswith("own token ids and vectors are not compared; for that, pip install llama-cpp-python")
    code, _, err = call("verify", folders.export, "--tolerance=1e-6")
    assert code == 70 and "in gguf: largest cosine distance" in err and "its vectors are not the trained model's" in err


def change_file(path, **changed) -> None:
    """Writes the tensors of a file again in float32, some of them changed, with changed prompts."""
    source = reader.Tensors(path)
    made = gguf.GGUFWriter(path.with_suffix(".new"), source.metadata["general.architecture"])
    for key, value in source.metadata.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer._add(made, key, changed.get(key.rpartition(".")[2], value))
    for name in source.names():
        made.add_tensor(name, changed.get(name, lambda array: array)(source.read(name)))
    made.write_header_to_file()
    made.write_kv_data_to_file()
    made.write_tensors_to_file()
    made.close()
    path.with_suffix(".new").replace(path)
    commit(path.parent)


CHANGES = {
    "a tensor": ({"blk.0.attn_v.weight": lambda array: array[::-1].copy()}, 70, "largest cosine distance"),
    "a prompt": ({"query": "search: "}, 70, "prompt 'query' is 'search: {content}', the model was exported with"),
    "the pooling": ({"pooling_type": 3}, 70, "largest cosine distance"),
    "what it says of itself": ({"file_type": 2}, 65, "says that the weights are q8_0, but they are Q4_0"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHANGES)
def test_verify_sees_what_was_changed(kind, copy, call):
    change, expected, message = CHANGES[kind]
    change_file(copy / writer.FILE, **change)
    code, _, err = call("verify", copy)
    assert code == expected and message in err and err.count("\n") == 1, err


@pytest.mark.slow
def test_verify_sees_a_damaged_or_an_added_file(copy, call):
    (copy / "other.gguf").write_bytes(b"GGUF")
    code, _, err = call("verify", copy)
    assert code == 65 and "other.gguf: is not of the export" in err
    (copy / "other.gguf").unlink()
    (copy / writer.FILE).write_bytes((copy / writer.FILE).read_bytes()[:5000])
    code, _, err = call("verify", copy)
    assert code == 65 and "model.gguf" in err
    commit(copy)
    code, _, err = call("verify", copy)
    assert code == 65 and "model.gguf: not a whole GGUF file" in err and err.count("\n") == 1


@pytest.fixture
def llama(monkeypatch, folders):
    """llama(ids, vectors) puts a package in llama.cpp's place that changes what the file gives; both by default as they are."""
    checks, _ = parity.read(folders.export)
    token_ids = {check.prompted: check.token_ids for check in checks}
    stored = reader.vectors(folders.export / writer.FILE, [check.token_ids for check in checks])
    vectors = {check.prompted: vector for check, vector in zip(checks, stored)}

    def install(ids=lambda x: x, vector=lambda x: x) -> list[dict]:
        opened = []

        class Llama:
            def __init__(self, path, **options):
                opened.append(options)

            def tokenize(self, text: bytes, special: bool) -> list[int]:
                return ids(list(token_ids[text.decode()]))

            def embed(self, text: str, normalize: bool, truncate: bool):
                assert normalize and not truncate
                return vector(vectors[text]).tolist()

        monkeypatch.setitem(sys.modules, "llama_cpp", types.SimpleNamespace(Llama=Llama))
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *more: "installed" if name == "llama_cpp" else find(name, *more)
        )
        return opened

    return install


@pytest.mark.slow
def test_verify_compares_with_llama_cpp_where_it_is_installed(folders, llama, call):
    opened = llama()
    code, out, err = call("verify", folders.export)
    assert code == 0, err
    assert "10 texts in llama.cpp: token ids equal, largest cosine distance to the same weights here" in out
    length = gguf_models.LENGTH
    assert opened[0] == {"embedding": True, "verbose": False, "n_ctx": length, "n_batch": length, "n_ubatch": length}


@pytest.mark.slow
def test_verify_sees_what_llama_cpp_makes_otherwise(folders, llama, call):
    llama(ids=lambda ids: ids[:-1])
    code, _, err = call("verify", folders.export)
    assert (
        code == 70 and "in llama.cpp: 'What is the capital of France?' with prompt 'query' has other token ids" in err
    )
    llama(vector=lambda vector: np.roll(vector, 1))
    code, _, err = call("verify", folders.export)
    assert code == 70 and "in llama.cpp: largest cosine distance" in err and "above 0.01" in err


def test_a_model_that_llama_cpp_lacks_is_refused_with_the_list(call, tmp_path):
    sizes = {
        "vocab_size": 512,
        "width": 8,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 4,
        "mlp_dim": 8,
    }
    module = Embedder(T5GemmaEncoder(**sizes), MeanPooling())
    tokenizer = gguf_models.merging(tmp_path / "vocabulary")
    description = bundles.model_json(
        api.describe(module), tokenizer_options=tokenizer.options(), tokenizer_digest=tokenizer.digest,
        prompts=gguf_models.PROMPTS, matryoshka_dims=[8], lengths={"query": 16}, lineage={},
    )  # fmt: skip
    contents = bundles.contents(description, tokenizer.filename, tokenizer.content())
    params = trees.unflatten(gguf_models.parameters(module))
    checkpoints.write_bundle(tmp_path / "bundle", params, contents)
    code, _, err = call("export", tmp_path / "bundle", tmp_path / "out", "--format=gguf", "--dtype=q4_0")
    assert code == 65 and err.count("\n") == 1 and not (tmp_path / "out").exists()
    assert (
        "T5GemmaEncoder cannot be a GGUF: llama.cpp has no such encoder. Possible: Bert (XLM-RoBERTa too), ModernBert"
        in err
    )


@pytest.mark.slow
def test_without_the_package_the_extra_is_named(folders, call, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None)
    code, _, err = call("export", folders.bundle, tmp_path / "out", "--format=gguf")
    assert code == 64 and "this needs gguf; run: pip install 'embed[gguf]'" in err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_prompt_behind_the_text_is_refused(folders, call, tmp_path):
    bundle = shutil.copytree(folders.bundle, tmp_path / "bundle")
    description = json.loads((bundle / "model.json").read_text())
    description["prompts"]["query"] = "{content} ?"
    (bundle / "model.json").write_text(json.dumps(description))
    manifest = json.loads((bundle / files.MANIFEST).read_text())
    (bundle / files.MANIFEST).unlink()
    files.write_manifest(bundle, **{k: v for k, v in manifest.items() if k not in ("files", "digest")})
    code, _, err = call("export", bundle, tmp_path / "out", "--format=gguf")
    assert code == 65 and "goes on behind {content}" in err and not (tmp_path / "out").exists()
