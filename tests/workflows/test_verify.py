"""Whether an export is what was written, checked on a folder made by hand; what runs the vectors is a stand-in.

Real exports are verified in tests/commands/test_interop_commands.py and tests/parity.
"""

import hashlib
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from embed import files
from embed.errors import DataError, NumericError, UsageError
from embed.interop import parity, readers, stablehlo, torch_twin
from embed.workflows import verify

PROMPTS = {"query": "query: {content}", "document": "{content}"}
TEXTS = [("a b", "query"), ("c", "document"), ("d e f", "query")]


def vector(text: str, prompt: str) -> np.ndarray:
    """The vector of a text and its prompt, as a template."""
    seed = int.from_bytes(hashlib.sha256(f"{prompt}|{text}".encode()).digest()[:4], "big")
    x = np.random.default_rng(seed).normal(size=6)
    return (x / np.linalg.norm(x)).astype(np.float32)


@pytest.fixture
def write(tmp_path, tokenizer):
    """write(**files) -> the folder of an export as a program, with more files; `parity` replaces fields of parity.json."""

    def make(changed=None, entries=None, **more: bytes):
        folder = tmp_path / "export"
        folder.mkdir()
        opened = tokenizer._open()[0]
        content = {
            "format": parity.FORMAT, "model": "d", "dtype": "float32", "tolerance": 1e-5, "max_length": 16,
            "text_normalization": "none", "prompts": PROMPTS,
            "entries": [
                {
                    "text": text, "prompt": prompt, "prompted": (prompted := PROMPTS[prompt].replace("{content}", text)),
                    "token_ids": opened.encode(prompted).ids, "vector": vector(text, PROMPTS[prompt]).tolist(),
                }
                for text, prompt in entries or TEXTS
            ],
            **(changed or {}),
        }  # fmt: skip
        files.write_json(folder / parity.FILE, content)
        files.write_json(folder / "model.json", {"prompts": PROMPTS, "tokenizer": tokenizer.options()})
        (folder / "tokenizer.json").write_bytes(tokenizer.content())
        if not {"modules.json"} & more.keys():
            (folder / stablehlo.PROGRAM).write_bytes(b"program")
        for name, written in more.items():
            (folder / name).write_bytes(written)
        files.write_manifest(folder, kind="export")
        return folder

    return make


@pytest.fixture
def error(monkeypatch):
    """What the stand-in adds to the first number of every vector; `error[0]` is changed by tests."""
    added = [0.0]

    def opened(place, prompted):
        assert prompted is readers.prompted_as_it_is

        def embed(text, prompt):
            return vector(text, prompt) + np.array([added[0], 0, 0, 0, 0, 0], np.float32)

        return embed

    monkeypatch.setattr(readers, "stablehlo_of", lambda folder: opened)
    return added


def test_an_export_is_as_far_off_as_its_largest_difference(write, error, capsys):
    folder = write()
    assert verify.run(folder) == 0.0
    assert (
        capsys.readouterr().out
        == f"{folder}: 3 texts in jax: token ids equal, largest error 0.00e+00 (tolerance 1e-05)\n"
    )
    error[0] = 5e-6
    assert verify.run(folder) == pytest.approx(5e-6, rel=0.05)
    with pytest.raises(NumericError, match="export in jax: largest error 5.*e-06 above 1e-06"):
        verify.run(folder, tolerance=1e-6)
    error[0] = 2e-5
    with pytest.raises(NumericError, match="largest error 2.*e-05 above 1e-05"):
        verify.run(folder)


def test_no_more_is_tolerated_than_the_weights_excuse(write, error):
    with pytest.raises(
        UsageError, match="^--tolerance=0.1: vectors of float32 weights may differ by 1e-05; give less$"
    ):
        verify.run(write(), tolerance=0.1)


def test_what_is_no_export_is_refused(tmp_path, write, error):
    with pytest.raises(DataError, match="parity.json: no such file; give a folder that embed export wrote"):
        verify.run(tmp_path)
    folder = write()
    (folder / stablehlo.PROGRAM).unlink()
    files.write_manifest(folder, kind="export")
    with pytest.raises(
        DataError, match=r"export: holds no export that can be run \(modules.json, onnx/model.onnx or model.st"
    ):
        verify.run(folder)


def test_a_damaged_file_and_one_that_was_added_are_refused(write, error):
    folder = write()
    (folder / "notes.md").write_text("read by nobody")
    (folder / ".cache.json").write_text("{}")
    verify.run(folder)
    (folder / "1_Pooling").mkdir()
    for name in ("vocab.txt", "1_Pooling/config.json"):
        (folder / name).write_text("{}")
        with pytest.raises(
            DataError, match=f"{name}: is not of the export, and its readers may read it; remove it, or export"
        ):
            verify.run(folder)
        (folder / name).unlink()
    (folder / "model.json").write_text((folder / "model.json").read_text().replace("query: ", "ask: "))
    with pytest.raises(DataError, match="model.json"):
        verify.run(folder)


def test_other_prompts_are_refused(write, error):
    folder = write()
    for wrong in (
        {**PROMPTS, "query": "ask: {content}"},
        {**PROMPTS, "more": "{content}"},
        {"query": PROMPTS["query"]},
    ):
        content = json.loads((folder / "model.json").read_text())
        files.write_json(folder / "model.json", {**content, "prompts": wrong})
        files.write_manifest(folder, kind="export")
        with pytest.raises(
            NumericError, match=r"export: prompt '(query|more|document)' is .*, the model was exported with"
        ):
            verify.run(folder)
    files.write_json(folder / "model.json", {**content, "prompts": {"query": 3}})
    files.write_manifest(folder, kind="export")
    with pytest.raises(DataError, match="model.json: prompts"):
        verify.run(folder)


def test_other_token_ids_are_refused(write, error, tokenizer):
    ids = tokenizer._open()[0].encode("query: a b").ids
    folder = write()
    content = json.loads((folder / parity.FILE).read_text())
    content["entries"][0]["token_ids"] = ids[:-1]
    files.write_json(folder / parity.FILE, content)
    files.write_manifest(folder, kind="export")
    with pytest.raises(NumericError, match="'a b' with prompt 'query' has other token ids"):
        verify.run(folder)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_the_type_of_the_weights_decides_what_is_tolerated(write, error, dtype, tolerance):
    """parity.json says a type; that of the weights themselves must be the same."""
    weights = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
    stored = {name: safetensors.numpy.save({"a": np.ones(3, kind)}) for name, kind in weights.items()}
    folder = write({"dtype": dtype, "tolerance": tolerance}, **{"model.safetensors": stored[dtype]})
    error[0] = tolerance / 2
    assert verify.run(folder) == pytest.approx(tolerance / 2, rel=0.05)
    other = "bfloat16" if dtype == "float32" else "float32"
    (folder / "model.safetensors").write_bytes(stored[other])
    said = {"float32": "F32", "bfloat16": "BF16"}[other]
    with pytest.raises(
        DataError, match=f"parity.json says that the weights are {dtype}, but they are {said}; export the model"
    ):
        verify.run(folder)


def test_a_reader_that_fails_is_told_in_one_line(write, error, monkeypatch):
    def broken(place, prompted):
        raise RuntimeError("no such platform\nand more")

    monkeypatch.setattr(readers, "stablehlo_of", lambda folder: broken)
    with pytest.raises(DataError, match=r"export: jax cannot read it \(no such platform\); export the model again$"):
        verify.run(write())


# sentence-transformers


def sentence_transformers(**changes) -> dict[str, bytes]:
    config = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query", **changes}
    return {"modules.json": b"[]", "config_sentence_transformers.json": json.dumps(config).encode()}


@pytest.fixture
def asked(monkeypatch):
    """What sentence-transformers was asked for: (texts, name of the prompt). It gives the right vectors."""
    calls = []

    def embed(texts, name):
        calls.append((texts, name))
        return np.stack([vector(text, PROMPTS[name] if name else "{content}") for text in texts])

    def opened(open_folder, place):
        assert open_folder is readers.open_sentence_transformers
        return embed

    monkeypatch.setattr(torch_twin, "opened", opened)
    return calls


def test_texts_of_a_prompt_are_embedded_together_and_put_back_in_order(write, asked, capsys):
    folder = write({"default_prompt_name": "query"}, **sentence_transformers())
    assert verify.run(folder) == 0.0
    assert sorted(asked, key=str) == sorted([(["a b", "d e f"], "query"), (["c"], "document")], key=str)
    assert "3 texts in sentence-transformers" in capsys.readouterr().out


def test_a_prompt_that_is_not_written_is_not_named(write, asked):
    prompts = {"query": "query: {content}"}
    folder = write({"prompts": prompts}, **sentence_transformers(prompts={"query": "query: "}))
    verify.run(folder)
    assert (["c"], None) in asked


def test_another_default_prompt_is_refused(write, asked):
    folder = write({"default_prompt_name": None}, **sentence_transformers())
    with pytest.raises(
        NumericError, match="default_prompt_name is 'query', the model was exported with None; texts without"
    ):
        verify.run(folder)


def test_exports_of_earlier_versions_say_no_default_prompt(write, asked):
    assert verify.run(write(**sentence_transformers())) == 0.0
