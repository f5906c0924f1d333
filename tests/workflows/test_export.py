"""What `export` puts together and refuses. The forms themselves are stand-ins here: tests/interop and tests/commands write them."""

import shutil
import types

import numpy as np
import pytest

from embed import bundles, documents, files
from embed.errors import DataError, StorageError, UsageError
from embed.inference import model as inference
from embed.interop import card, parity, sentence_transformers, stablehlo, torch_twin
from embed.text import PROMPTS
from embed.workflows import export


@pytest.fixture
def calls(monkeypatch, tokenizer) -> list[tuple]:
    """What the stand-ins were given, in order: (what, its arguments)."""
    seen = []

    def writes(name):
        def write(folder, trained, *more):
            seen.append((name, *more))
            (folder / name).write_text("written")

        return write

    def to_onnx(twin, path, pooling):
        seen.append(("onnx", pooling))
        path.write_text("written")

    def open_model(folder, **options):
        seen.append(("open", folder, options))
        prompts = bundles.read_model_json(folder)["prompts"]
        encode = lambda texts, prompt: np.full((len(texts), 4), 0.5, np.float32)  # noqa: E731
        tokens = lambda texts, prompt: tokenizer.encode_batch([t.strip() for t in texts], 16)[0]  # noqa: E731
        encoder = types.SimpleNamespace(texts=types.SimpleNamespace(tokens=tokens))
        return types.SimpleNamespace(encode=encode, prompts=prompts, encoder=encoder)

    def write_card(trained, form, name, scores, recipe, notes):
        seen.append(("card", form, name, scores, recipe))
        return b"# card\n"

    monkeypatch.setattr(sentence_transformers, "write", writes("modules.json"))
    monkeypatch.setattr(sentence_transformers, "write_tokenizer", lambda folder, trained: seen.append(("tokenizer",)))
    monkeypatch.setattr(sentence_transformers, "write_prompts", lambda folder, trained: seen.append(("prompts",)))
    monkeypatch.setattr(stablehlo, "write", writes("model.stablehlo"))
    monkeypatch.setattr(torch_twin, "need", lambda *names: seen.append(("need", *names)))
    monkeypatch.setattr(torch_twin, "to_onnx", to_onnx)
    monkeypatch.setattr(inference, "open_model", open_model)
    monkeypatch.setattr(card, "write", write_card)
    return seen


def test_a_program_has_a_card_parity_and_a_manifest(bundle, calls, tmp_path, capsys):
    output = tmp_path / "out"
    export.run(bundle, output, format="stablehlo")
    assert [name for name, *_ in calls] == ["model.stablehlo", "open", "card"]
    assert calls[1:] == [
        ("open", bundle, {"dtype": "float32", "weights": "float32"}),
        ("card", "stablehlo", "out", None, None),
    ]
    manifest = files.verify_manifest(output)
    assert (manifest["kind"], manifest["form"]) == ("export", "stablehlo")
    assert set(manifest["files"]) == {"parity.json", "model.stablehlo"}
    assert (output / "README.md").read_text() == "# card\n"
    checks, content = parity.read(output)
    assert content["prompts"] == bundles.read_model_json(bundle)["prompts"]
    assert (content["max_length"], content["model"]) == (48, files.folder_digest(bundle))
    assert (content["text_normalization"], content["default_prompt_name"]) == ("NFC, strip", None)
    assert checks[0].prompted == PROMPTS["query"].replace("{content}", parity.TEXTS[0])
    assert {c.text for c in checks} >= set(parity.TEXTS), "texts with white space at their ends too"
    told = capsys.readouterr().out
    assert told.startswith(f"exporting  {bundle} as stablehlo, float32\n") and "note" not in told
    assert told.endswith(f"wrote      {output} (0 MB); prove it: embed verify {output}\n")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_for_sentence_transformers_are_rounded_and_compared_so(bundle, calls, tmp_path, dtype):
    export.run(bundle, tmp_path / "out", dtype=dtype)
    assert calls[0] == ("modules.json", dtype)
    assert calls[1] == ("open", bundle, {"dtype": "float32", "weights": dtype})
    _, content = parity.read(tmp_path / "out")
    assert content["tolerance"] == parity.TOLERANCE[dtype]
    assert content["prompts"]["query"] == PROMPTS["query"] and content["prompts"]["own"] == "own: {content}"
    # Of a template with a title what is before it, with "none" in its place, as texts without one are read.
    assert content["prompts"]["document"] == "title: none | text: {content}"


def test_onnx_is_made_of_a_torch_twin_that_is_gone_then(bundle, calls, tmp_path):
    export.run(bundle, tmp_path / "out", format="onnx")
    assert calls[0] == ("need", "torch", "sentence_transformers", "onnx", "onnxscript")
    assert [name for name, *_ in calls[1:5]] == ["modules.json", "onnx", "tokenizer", "prompts"]
    written = set(files.verify_manifest(tmp_path / "out")["files"])
    assert written == {"onnx/model.onnx", "model.json", "parity.json"}
    assert "architecture" not in documents.read_json(tmp_path / "out" / "model.json")


def test_the_card_of_a_run_has_its_recipe(bundle, calls, tmp_path):
    step = tmp_path / "run" / "checkpoints" / "7"
    step.parent.mkdir(parents=True)
    shutil.copytree(bundle, step)
    export.run(tmp_path / "run", tmp_path / "first", format="stablehlo")
    (tmp_path / "run" / "operative_config.gin").write_text("A = 1\n")
    export.run(tmp_path / "run", tmp_path / "second", format="stablehlo")
    # A bundle that lies two folders below such a file is of no run.
    shutil.copytree(bundle, tmp_path / "run" / "checkpoints" / "soup")
    export.run(tmp_path / "run" / "checkpoints" / "soup", tmp_path / "third", format="stablehlo")
    recipes = [call[4] for call in calls if call[0] == "card"]
    assert recipes == [None, "A = 1\n", None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "onxx"}, "--format=onxx; did you mean 'onnx'?"),
        ({"dtype": "float61"}, "--dtype=float61; did you mean 'float16'?"),
        ({"dtype": "q4_0"}, "--dtype=q4_0 goes with --format=gguf"),
        (
            {"dtype": "bfloat16", "format": "stablehlo"},
            "--dtype=bfloat16 goes with --format=sentence-transformers or gguf",
        ),
        ({"dtype": "bfloat16", "format": "onnx"}, "--dtype=bfloat16 goes with --format=sentence-transformers or gguf"),
    ],
)
def test_options_that_are_wrong_or_do_not_go_together_are_refused(bundle, calls, tmp_path, options, message):
    with pytest.raises(UsageError) as caught:
        export.run(bundle, tmp_path / "out", **options)
    assert str(caught.value) == message and calls == [] and not (tmp_path / "out").exists()


def test_what_is_there_stays_and_what_is_missing_is_told(bundle, calls, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(StorageError, match="out: already exists; choose another output"):
        export.run(bundle, tmp_path / "out")
    with pytest.raises(DataError, match="scores.json"):
        export.run(bundle, tmp_path / "new", scores=tmp_path / "scores.json")
    with pytest.raises(DataError, match="not a run folder, checkpoint step or bundle"):
        export.run(tmp_path / "out", tmp_path / "new")
    assert calls == [] and not (tmp_path / "new").exists()


def test_a_failure_half_way_leaves_nothing(bundle, calls, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(card, "write", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        export.run(bundle, tmp_path / "out", format="stablehlo")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("out") or ".tmp-" in p.name]
