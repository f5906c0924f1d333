"""convert, export and verify at the command line: a model with a SentencePiece vocabulary out and in again, and bad usage."""

import importlib.util
import json
import pathlib
import random
import shutil

import jax
import numpy as np
import pytest

from embed import arrays, bundles, checkpoints, files, trees
from embed.commands.main import main
from embed.data import tokenizers
from embed.errors import DataError, NumericError
from embed.inference import model as inference
from embed.interop import parity, tokenizer_json
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.modernbert import ModernBert
from embed.models.pooling import AttentionPooling, MeanPooling
from embed.text import PROMPTS

SIZES = {"vocab_size": 450, "width": 12, "num_layers": 2, "num_heads": 2, "mlp_dim": 16, "window": 8, "global_every": 2}
NO_TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")


@pytest.fixture
def call(capsys):
    """Runs `embed` in this process: call(arguments) -> (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as e:
            main([str(a) for a in arguments])
        out = capsys.readouterr()
        return e.value.code, out.out, out.err

    return run


@pytest.fixture
def refused(call, tmp_path):
    """Runs a command that must fail; returns its one line, after checking that tmp_path/out and its parts are not there."""

    def run(code: int, *arguments) -> str:
        found, _, err = call(*arguments)
        assert found == code, err
        assert err.count("\n") == 1 and err.startswith("embed: ") and "Traceback" not in err, err
        assert not (tmp_path / "out").exists()
        assert not [p.name for p in tmp_path.iterdir() if ".tmp-" in p.name]
        return err

    return run


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """make(pooling, prompts) -> (model.json and tokenizer as bytes, parameters) of a tiny ModernBERT."""
    folder = tmp_path_factory.mktemp("vocabulary")
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 6))) for _ in range(120)]
    texts = [" ".join(draw.choices(words, k=8)) for _ in range(300)]
    (folder / "v.model").write_bytes(tokenizers.train_sentencepiece([*texts, *PROMPTS.values()], 430))
    tokenizer = tokenizers.SentencePiece(str(folder / "v.model"))

    def run(pooling=None, prompts=PROMPTS):
        model = api.build(Embedder(ModernBert(**SIZES), pooling or MeanPooling(), (9,), (4,)))
        random_ = np.random.default_rng(2)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        params = jax.tree.map(lambda s: (random_.normal(size=s.shape) * 0.3).astype(np.float32), shapes)
        description = bundles.model_json(
            model.description,
            tokenizer_options=tokenizer.options(),
            tokenizer_digest=tokenizer.digest,
            prompts=dict(prompts),
            matryoshka_dims=model.matryoshka_dims,
            lengths={"query": 16, "target": 24, "inference": 32},
            lineage={"initial": "random, seed 0", "step": 3, "mixture": {"first": 1.0}},
        )
        return bundles.contents(description, tokenizer.filename, tokenizer.content()), params

    return run


@pytest.fixture(scope="module")
def run_dir(make, tmp_path_factory) -> pathlib.Path:
    """A run folder with one checkpoint, in which a moving average is exported; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    contents, params = make()
    saver = checkpoints.Saver(folder / "checkpoints")
    saver.save(3, {"params": jax.tree.map(lambda x: -x, params), "learned": {"model": params}}, contents)
    saver.close()
    (folder / "operative_config.gin").write_text("gemma.Gemma.width = 12\n")
    return folder


@pytest.fixture
def bundle(make, tmp_path):
    """bundle(...) -> a bundle of `make`'s model."""

    def run(*arguments, **options) -> pathlib.Path:
        contents, params = make(*arguments, **options)
        return checkpoints.write_bundle(tmp_path / "bundle", params, contents)

    return run


@pytest.fixture(scope="module")
def program(run_dir):
    """The run exported as StableHLO, not to be changed."""
    with pytest.raises(SystemExit) as e:
        main(["export", str(run_dir), str(run_dir.parent / "program"), "--format=stablehlo"])
    assert e.value.code == 0
    return run_dir.parent / "program"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["added_tokens.json", "1_Pooling/config.json", "vocab.txt"])
def test_verify_refuses_a_file_that_was_added(program, refused, tmp_path, name):
    copy = pathlib.Path(shutil.copytree(program, tmp_path / "copy"))
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("{}")
    assert f"{name}: is not of the export, and its readers may read it" in refused(65, "verify", copy)


@pytest.mark.slow
def test_verify_takes_the_type_of_the_weights_from_the_weights(run_dir, call, refused, tmp_path):
    """A parity.json that says bfloat16 of float32 weights would allow an error of 3e-2."""
    folder = tmp_path / "theirs"
    assert call("export", run_dir, folder)[0] == 0
    content = json.loads((folder / "parity.json").read_text())
    (folder / "parity.json").write_text(json.dumps(content | {"dtype": "bfloat16", "tolerance": 3e-2}))
    files.write_manifest(folder)
    assert "parity.json says that the weights are bfloat16, but they are F32" in refused(65, "verify", folder)


@pytest.mark.slow
def test_verify_refuses_another_default_prompt(run_dir, call, refused, tmp_path):
    folder = tmp_path / "theirs"
    assert call("export", run_dir, folder)[0] == 0
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"default_prompt_name": "query"}))
    files.write_manifest(folder)
    assert "default_prompt_name is 'query', the model was exported with None" in refused(70, "verify", folder)


def test_out_to_sentence_transformers_and_in_again(run_dir, call, tmp_path):
    code, out, err = call("export", run_dir, tmp_path / "theirs")
    assert code == 0 and err == ""
    assert f"exporting  {run_dir / 'checkpoints' / '3'} as sentence-transformers, float32" in out
    assert f"prove it: embed verify {tmp_path / 'theirs'}" in out
    code, out, err = call("convert", tmp_path / "theirs", tmp_path / "ours")
    assert code == 0, err
    assert "model      modernbert: " in out and "12 -> 9, Matryoshka sizes 9, 4" in out and "texts cut at 32" in out
    average = trees.flatten(arrays.load_numpy(run_dir / "checkpoints" / "3"))
    back = trees.flatten(arrays.load_numpy(tmp_path / "ours"))
    assert list(back) == list(average)
    for path, array in average.items():
        if path != "encoder/stack/layers/attention_norm/scale":
            assert back[path].tobytes() == array.tobytes(), path
    # The first layer has no such norm: whatever stood there comes back neutral.
    norms = "encoder/stack/layers/attention_norm/scale"
    assert np.array_equal(back[norms][1], average[norms][1]) and np.all(back[norms][0] == 1)
    before, after = (bundles.read_model_json(p) for p in (run_dir / "checkpoints" / "3", tmp_path / "ours"))
    assert after["prompts"] == before["prompts"] and after["matryoshka_dims"] == [9, 4]
    assert after["lengths"] == {"query": 32, "target": 32}
    one, two = (inference.open_model(p) for p in (run_dir, tmp_path / "ours"))
    for name in ("query", "document"):
        a, b = (m.encoder.texts.tokens(parity.TEXTS, name) for m in (one, two))
        assert [x.tolist() for x in a] == [x.tolist() for x in b]
        vectors = [m.encode(parity.TEXTS, prompt=name) for m in (one, two)]
        assert np.max(np.abs(vectors[0] - vectors[1])) <= 1e-6


@pytest.mark.slow
def test_a_run_exports_its_average_and_its_recipe(program, run_dir):
    average = trees.flatten(arrays.load_numpy(run_dir / "checkpoints" / "3"))
    with np.load(program / "parameters.npz", allow_pickle=False) as stored:
        assert all(np.array_equal(stored[path], average[path]) for path in average)
    text = (program / "README.md").read_text(encoding="utf-8")
    assert "gemma.Gemma.width = 12" in text and "- step: 3" in text and "tokenizer.json" in text
    found = {p.name for p in program.iterdir()}
    wanted = {"README.md", "MANIFEST.json", "model.stablehlo", "parameters.npz", "parity.json", "model.json"}
    wanted.add("tokenizer.json")
    assert found == wanted
    content = json.loads((program / "parity.json").read_text(encoding="utf-8"))
    assert content["model"] == files.folder_digest(run_dir / "checkpoints" / "3") and content["max_length"] == 32


@pytest.mark.slow
def test_verify_a_program_with_a_sentencepiece_vocabulary(program, call, tmp_path, monkeypatch, run_dir):
    """One that no tokenizer.json can stand for is exported as it is, and read with sentencepiece."""
    assert call("verify", program)[0] == 0  # its tokenizer.json gives the ids of the vocabulary

    def none_can(tokenizer):
        raise DataError("normalises by its own rule")

    monkeypatch.setattr(tokenizer_json, "from_sentencepiece", none_can)
    copy = tmp_path / "copy"
    assert call("export", run_dir, copy, "--format=stablehlo")[0] == 0
    assert (copy / "tokenizer.model").is_file() and not (copy / "tokenizer.json").exists()
    assert "SentencePieceProcessor" in (copy / "README.md").read_text()
    code, out, err = call("verify", copy)
    assert code == 0 and "texts in jax: token ids equal, largest error" in out, err
    described = json.loads((copy / "model.json").read_text())
    described["tokenizer"]["add_eos"] = False
    (copy / "model.json").write_text(json.dumps(described))
    (copy / "MANIFEST.json").unlink()
    files.write_manifest(copy)
    code, _, err = call("verify", copy)
    assert code in (65, 70) and ("has other token ids" in err or "tokenizer is not" in err) and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "x"), "the following arguments are required: OUTPUT"),
        (("convert", "x", "out", "--prompt=query"), "--prompt=query: give NAME=TEXT"),
        (("convert", "x", "out", "--prompt==a"), "--prompt==a: give NAME=TEXT"),
        (("convert", "x", "out", "--matryoshka_dims=8,b"), "--matryoshka_dims=8,b: not numbers separated by commas"),
        (("convert", "x", "out", "--max_length=ten"), "'ten' is not an integer"),
        (("export", "x", "out", "--format=stable-hlo"), "did you mean 'stablehlo'?"),
        (("export", "x", "out", "--format=lite"), "known: bundle, gguf, onnx, sentence-transformers, stablehlo"),
        (("export", "x", "out", "--dtype=float61"), "--dtype=float61; did you mean 'float16'?"),
        (("export", "x", "out", "--dtype=float16"), "--dtype=float16 goes with --format=gguf"),
        (("export", "x", "out", "--dtype=bfloat16", "--format=stablehlo"), "--format=sentence-transformers or gguf"),
        (("verify", "x", "--tolerance=small"), "'small' is not a number"),
        (("verify", "x", "--gin.A=1"), "takes no gin bindings"),
    ],
)
def test_bad_usage(arguments, message, refused, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert message in refused(64, *arguments)


@NO_TORCH
def test_what_needs_torch_says_how_to_get_it(run_dir, refused, call, tmp_path):
    err = refused(64, "export", run_dir, tmp_path / "out", "--format=onnx")
    assert "this needs torch, sentence_transformers, onnx, onnxscript; run: pip install 'embed[export]'" in err
    assert call("export", run_dir, tmp_path / "theirs")[0] == 0
    assert "run: pip install 'embed[export]'" in refused(64, "verify", tmp_path / "theirs")


@pytest.mark.parametrize("command", ["export", "convert"])
def test_an_existing_output_is_kept(command, run_dir, call, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    code, _, err = call(command, run_dir, tmp_path / "out")
    assert code == 74 and err.count("\n") == 1 and "already exists; choose another output or remove it first" in err
    assert (tmp_path / "out" / "mine").read_text() == "keep" and len(list((tmp_path / "out").iterdir())) == 1


def test_what_is_no_model_is_not_exported(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        err = refused(65, "export", tmp_path / name, tmp_path / "out")
        assert "not a run folder, checkpoint step or bundle" in err
    assert "parity.json: no such file" in refused(65, "verify", tmp_path / "empty")


def test_a_damaged_model_is_not_exported(bundle, refused, tmp_path):
    folder = bundle()
    victim = max((folder / "params").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    assert "sha256 differs" in refused(65, "export", folder, tmp_path / "out")


@pytest.mark.slow
def test_what_sentence_transformers_cannot_say(bundle, refused, call, tmp_path):
    folder = bundle(pooling=AttentionPooling(2), prompts={**PROMPTS, "query": "{content} ?"})
    err = refused(65, "export", folder, tmp_path / "out")
    assert "AttentionPooling: sentence-transformers has no such pooling; export with --format=stablehlo" in err
    shutil.rmtree(folder)
    folder = bundle(prompts={**PROMPTS, "query": "{content} ?"})
    assert "export with --format=stablehlo" in refused(65, "export", folder, tmp_path / "out")


SCORES = {
    "none": (None, "results.json: no such file"),
    "not JSON": ("{", "results.json: not valid JSON"),
    "no results": ('{"suite": "a"}', "results.json"),
    "something else": ('{"suite": "a", "models": {"b": 3}}', "results.json"),
}


@pytest.mark.parametrize("kind", SCORES)
def test_scores_that_are_none(kind, run_dir, refused, tmp_path):
    content, message = SCORES[kind]
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    err = refused(65, "export", run_dir, tmp_path / "out", f"--scores={tmp_path / 'results.json'}")
    assert message in err


@pytest.mark.slow
def test_a_failure_half_way_leaves_nothing(run_dir, refused, monkeypatch, tmp_path):
    def fail(**_):
        raise NumericError("the vectors are not finite")

    monkeypatch.setattr(parity, "make", fail)
    for form in ("sentence-transformers", "stablehlo"):
        refused(70, "export", run_dir, tmp_path / "out", f"--format={form}")
