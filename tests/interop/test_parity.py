"""parity.json and `embed verify`: what the file holds, that StableHLO gives the same with jax alone, and that changes show."""

import json
import shutil
import unicodedata

import numpy as np
import pytest
import tokenizers

from embed import files
from embed.errors import DataError, NumericError
from embed.inference import model as inference
from embed.interop import parity
from embed.interop import source as sources
from embed.text import PROMPTS

PREFIXES = {"query": "find: ", "document": "text: ", "clustering": "group: ", "mine": "mine> ", "classification": ""}


@pytest.fixture(scope="module")
def content(program):
    return json.loads((program / "parity.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model(gemma_bundle):
    return inference.open_model(gemma_bundle)


@pytest.fixture
def copy(program, tmp_path):
    """A copy of the program's folder with three of its texts, to be changed."""
    folder = shutil.copytree(program, tmp_path / "copy")
    rewrite(folder, lambda entries: entries.__setitem__(slice(None), [entries[5], entries[17], entries[0]]))
    return folder


@pytest.mark.slow
def test_every_text_with_both_sides_and_every_other_prompt_once(content):
    pairs = [(e["prompt"], e["text"]) for e in content["entries"]]
    sides = [(name, [t for p, t in pairs if p == name]) for name in ("query", "document")]
    for _, texts in sides:
        assert texts[:-1] == list(parity.TEXTS)
        assert texts[-1].startswith("word0 word1 ")
    others = [(p, t) for p, t in pairs if p not in ("query", "document")]
    # Names that repeat a prompt (question answering is the query's here) say nothing new.
    assert others == [(p, parity.TEXTS[0]) for p in ("classification", "clustering", "mine")]


def test_texts_are_of_many_scripts():
    names = {unicodedata.name(c).split()[0] for t in parity.TEXTS for c in t if c.isalpha()}
    wanted = {"LATIN", "CYRILLIC", "ARABIC", "DEVANAGARI", "CJK", "HIRAGANA", "HANGUL", "THAI"}
    assert wanted <= names
    everything = "".join(parity.TEXTS)
    assert "\n" in everything and "\t" in everything and "  " in everything and "\u200d" in everything
    assert not all(unicodedata.is_normalized("NFC", t) for t in parity.TEXTS)
    assert any(t != t.lstrip() for t in parity.TEXTS) and any(t != t.rstrip() for t in parity.TEXTS)


def test_prompts_and_token_ids_are_what_the_tokenizer_gives(content, program):
    own = tokenizers.Tokenizer.from_file(str(program / "tokenizer.json"))
    own.no_padding()
    own.no_truncation()
    for entry in content["entries"]:
        assert entry["prompted"] == PREFIXES[entry["prompt"]] + entry["text"]
        ids = own.encode(entry["prompted"]).ids
        cut = ids if len(ids) <= 48 else [*ids[:47], ids[-1]]  # [SEP] stays at the end of what is cut
        assert entry["token_ids"] == cut
    lengths = [len(e["token_ids"]) for e in content["entries"]]
    assert max(lengths) == content["max_length"] == 48 and min(lengths) < 12
    long = [e for e in content["entries"] if e["text"].startswith("word0")]
    assert len(long) == 2 and all(len(own.encode(e["prompted"]).ids) > 60 for e in long)


def test_vectors_are_the_models(content, model):
    for name in ("query", "document", "mine"):
        own = [e for e in content["entries"] if e["prompt"] == name]
        vectors = np.array([e["vector"] for e in own], np.float32)
        assert vectors.shape == (len(own), 10)
        assert np.max(np.abs(np.linalg.norm(vectors, axis=1) - 1)) <= 1e-6
        assert np.array_equal(vectors, model.encode([e["text"] for e in own], prompt=name))
    both = np.array([e["vector"] for e in content["entries"] if e["text"] == parity.TEXTS[0]])
    assert np.min(np.abs(both[:, None] - both[None]).max(-1) + np.eye(len(both))) > 1e-3  # a prompt changes a vector


def test_what_the_file_says_of_itself(content, model):
    assert content["prompts"] == model.prompts
    del content["entries"], content["max_length"], content["prompts"]
    normalization = {"text_normalization": "none"}
    assert content == {
        "default_prompt_name": None,
        "format": 2,
        "model": model.digest,
        "dtype": "float32",
        "tolerance": 1e-5,
        "measure": "error",
        **normalization,
    }


def test_verify_passes(program, call):
    code, out, err = call("verify", program)
    assert code == 0, err
    assert out.startswith(f"{program}: 37 texts in jax: token ids equal, largest error ") and "tolerance 1e-05" in out
    assert call("verify", program, "--tolerance=1e-5") == (0, out, "")


def failed(call, folder, *options) -> str:
    code, _, err = call("verify", folder, *options)
    assert code == 70 and err.count("\n") == 1 and err.startswith("embed: ")
    return err


def commit(folder) -> None:
    """Makes the manifest one of what the folder holds now, as who tampers with a folder would."""
    (folder / files.MANIFEST).unlink()
    files.write_manifest(folder)


def rewrite(folder, change) -> None:
    content = json.loads((folder / "parity.json").read_text())
    change(content["entries"])
    (folder / "parity.json").write_text(json.dumps(content))
    commit(folder)


def test_verify_sees_an_altered_vector(copy, call):
    def change(entries):
        entries[0]["vector"][3] += 2e-5

    rewrite(copy, change)
    err = failed(call, copy)
    assert float(err.split("largest error ")[1].split()[0]) == pytest.approx(2e-5, rel=0.05)
    assert "above 1e-05" in err and "Москва" in err and "'query'" in err
    assert "its vectors are not the trained model's" in err


@pytest.mark.parametrize("tolerance", [1e9, 1e-4, -1.0, "NaN", None, "0.00001"])
def test_the_file_that_is_checked_does_not_say_how_much_error_it_may_have(copy, call, tolerance):
    content = json.loads((copy / "parity.json").read_text())
    content["entries"][0]["vector"][3] += 0.5
    text = json.dumps({**content, "tolerance": "HERE"}).replace(
        '"HERE"', "NaN" if tolerance == "NaN" else json.dumps(tolerance)
    )
    (copy / "parity.json").write_text(text)
    commit(copy)
    code, _, err = call("verify", copy)
    assert code == 65 and err.count("\n") == 1 and "parity.json" in err


@pytest.mark.parametrize("tolerance", ["1e9", "nan", "inf", "0", "-1", "2e-5"])
def test_nor_does_the_command_line(program, call, tolerance):
    code, _, err = call("verify", program, f"--tolerance={tolerance}")
    assert code == 64 and err.count("\n") == 1


def test_any_file_that_changed_is_seen_before_a_text_is_run(program, call, tmp_path):
    random = np.random.default_rng(0)
    names = sorted(p.name for p in program.iterdir() if p.name != "README.md")
    for number, name in enumerate(names):
        copy = shutil.copytree(program, tmp_path / str(number))
        data = bytearray((copy / name).read_bytes())
        data[random.integers(len(data))] ^= 1 << int(random.integers(8))
        (copy / name).write_bytes(data)
        code, _, err = call("verify", copy)
        assert code == 65 and err.count("\n") == 1, (name, err)


def test_verify_sees_an_altered_token_id(copy, call):
    def change(entries):
        entries[1]["token_ids"][2] += 1

    rewrite(copy, change)
    err = failed(call, copy)
    assert "'document' has other token ids" in err and "the tokenizer of the export is not the model's" in err


def test_verify_sees_an_altered_parameter(copy, call):
    with np.load(copy / "parameters.npz", allow_pickle=False) as stored:
        parameters = {name: stored[name].copy() for name in stored.files}
    parameters["projection_1/kernel"][2, 3] += 0.01
    np.savez(copy / "parameters.npz", **parameters)
    commit(copy)
    assert "its vectors are not the trained model's" in failed(call, copy)


def test_verify_sees_another_tokenizer(copy, call):
    made = json.loads((copy / "tokenizer.json").read_text())
    for token in made["post_processor"]["special_tokens"].values():
        token["ids"] = [1]  # [CLS] and [SEP] become [UNK]
    (copy / "tokenizer.json").write_text(json.dumps(made))
    commit(copy)
    assert "has other token ids" in failed(call, copy)


def test_verify_sees_values_that_are_not_finite(copy, call):
    with np.load(copy / "parameters.npz", allow_pickle=False) as stored:
        parameters = {name: stored[name].copy() for name in stored.files}
    parameters["projection_1/kernel"][0, 0] = np.nan
    np.savez(copy / "parameters.npz", **parameters)
    commit(copy)
    assert "largest error inf" in failed(call, copy)


DAMAGE = {
    "no file": (lambda f: (f / "parity.json").unlink(), "parity.json: no such file"),
    "not JSON": (lambda f: (f / "parity.json").write_text("{"), "parity.json: not valid JSON"),
    "no entries": (lambda f: (f / "parity.json").write_text("{}"), "parity.json: object missing required field"),
    "empty": (lambda f: rewrite(f, lambda entries: entries.clear()), "parity.json: not a parity file of this version"),
    "no vector": (
        lambda f: rewrite(f, lambda entries: entries[0].pop("vector")),
        "required field vector at entries[0]",
    ),
    "ragged": (lambda f: rewrite(f, lambda entries: entries[1]["vector"].pop()), "not a parity file of this version"),
    "cut program": (
        lambda f: ((f / "model.stablehlo").write_bytes((f / "model.stablehlo").read_bytes()[:500]), commit(f)),
        "jax cannot read it",
    ),
    "cut parameters": (
        lambda f: ((f / "parameters.npz").write_bytes((f / "parameters.npz").read_bytes()[:5000]), commit(f)),
        "jax cannot read it",
    ),
    "no parameters": (lambda f: ((f / "parameters.npz").unlink(), commit(f)), "jax cannot read it"),
    "no model.json": (lambda f: ((f / "model.json").unlink(), commit(f)), "model.json: no such file"),
    "no prompts": (lambda f: ((f / "model.json").write_text("{}"), commit(f)), "model.json: prompts"),
    "no export": (lambda f: ((f / "model.stablehlo").unlink(), commit(f)), "holds no export that can be run"),
    "no manifest": (lambda f: (f / files.MANIFEST).unlink(), "no MANIFEST.json"),
    "a file changed": (lambda f: (f / "model.json").write_text("{}"), "model.json: 2 bytes, but MANIFEST.json says"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_export_is_bad_data(kind, copy, call):
    change, message = DAMAGE[kind]
    change(copy)
    code, _, err = call("verify", copy)
    assert code == 65 and err.count("\n") == 1 and message in err, err


def test_vectors_of_another_size_mean_a_missing_map(program):
    checks, _ = parity.read(program)
    ids = [c.token_ids for c in checks]
    with pytest.raises(NumericError, match="vectors of 12 values, expected 10; a linear map is missing"):
        parity.compare(checks, ids, np.zeros((len(checks), 12), np.float32), 1e-5, "here")


def test_the_largest_error_is_reported(program):
    checks, _ = parity.read(program)
    vectors = np.stack([c.vector for c in checks])
    vectors[4, 2] += 3e-6
    found = parity.compare(checks, [c.token_ids for c in checks], vectors, 1e-5, "here")
    assert found == pytest.approx(3e-6, rel=0.05)


def contents(is_repeated, measure="error", dtype="float32"):
    """Returns the content that `make` gives for a model of one vector, whose token ids are a text's words."""
    return parity.make(
        encode=lambda texts, prompt: np.full((len(texts), 4), 0.5, np.float32),
        tokens=lambda texts, prompt: [np.arange(len(text.split())) for text in texts],
        prompts={"query": "q: {content}", "document": "{content}"},
        written={},
        max_length=40,
        model="d",
        dtype=dtype,
        text_normalization="none",
        is_repeated=is_repeated,
        measure=measure,
    )


def test_texts_that_a_reader_does_not_repeat_are_left_out():
    def is_repeated(prompt_template, text):
        return text.isascii() and len(text.split()) < (20 if prompt_template.startswith("q") else 30)

    entries = contents(is_repeated)["entries"]
    assert all(is_repeated({"query": "q: {content}"}.get(e["prompt"], "{content}"), e["text"]) for e in entries)
    words = {e["prompt"]: len(e["text"].split()) for e in entries if e["text"].startswith("word0 ")}
    assert words == {"query": 16, "document": 22}, "the longest that a reader can have, of 40, 30, 22, 16, ... words"
    assert not [e for e in contents(lambda _, text: len(text) < 5)["entries"] if e["text"].startswith("word0 ")]


def test_tolerances_are_those_of_the_measure_and_the_type(tmp_path):
    content = contents(lambda *_: True, "cosine distance", "q4_0")
    assert (content["measure"], content["tolerance"]) == ("cosine distance", 0.2)
    for change, is_allowed in (({}, True), ({"measure": "error"}, False), ({"dtype": "q8_0"}, False)):
        (tmp_path / "parity.json").write_text(json.dumps({**content, **change}))
        if is_allowed:
            assert parity.read(tmp_path)[1] == content
        else:
            with pytest.raises(DataError, match="not a parity file of this version"):
                parity.read(tmp_path)


def test_cosine_distances_are_measured_too(program):
    checks, _ = parity.read(program)
    turned = np.stack([c.vector for c in checks])
    turned[3] = -turned[3]
    ids = [c.token_ids for c in checks]
    with pytest.raises(NumericError, match="here: largest cosine distance 2 above 0.2, at 'Die K"):
        parity.compare(checks, ids, turned, 0.2, "here", "cosine distance")
    assert parity.compare(checks, ids, turned, 2.1, "here", "cosine distance") == pytest.approx(2, abs=1e-6)
    assert parity.distances(np.eye(2), np.array([[1.0, 0], [1, 0]])).tolist() == [0, 1]


@pytest.mark.slow
def test_rounded_weights_have_rounded_vectors(gemma_bundle, foreign, call, tmp_path, monkeypatch):
    """The file of a bfloat16 export holds the vectors of the weights it was written with, in float32."""
    monkeypatch.setattr(parity, "TEXTS", parity.TEXTS[:3])
    code, _, err = call("export", gemma_bundle, tmp_path / "half", "--dtype=bfloat16")
    assert code == 0, err
    checks, content = parity.read(tmp_path / "half")
    assert content["dtype"] == "bfloat16" and content["tolerance"] == 3e-2
    again = foreign.to_bundle(tmp_path / "half", tmp_path / "again")
    model = inference.open_model(again)
    mine = [c for c in checks if c.prompt == "query"]
    found = model.encode([c.text for c in mine], prompt="query")
    assert np.max(np.abs(found - np.stack([c.vector for c in mine]))) <= 1e-6


def test_a_source_read_again_has_the_exports_prompts(gemma_bundle, foreign, tmp_path):
    folder = foreign.to_folder(gemma_bundle, tmp_path / "out")
    found = sources.read(folder).prompts
    assert set(found) == {*PROMPTS, "mine"}
    for name, prefix in PREFIXES.items():
        assert found[name] == prefix + "{content}"
