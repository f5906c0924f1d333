"""From nothing to an embedder by the command line: a causal model, an encoder-decoder from it, pairs from its encoder."""

import hashlib
import json
import pathlib
import signal

import numpy as np
import pytest

from embed import arrays, bundles

pytestmark = pytest.mark.slow
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SMALL = (
    "--gin.PAIRS='pairs.jsonl'", "--gin.CACHE_DIR='data'", "--gin.VOCAB_SIZE=360", "--gin.TRAIN_STEPS=4", "--gin.WARMUP_STEPS=1",
    "--gin.BATCH_SIZE=8", "--gin.CHECKPOINT_EVERY=2", "--gin.gemma.Gemma.width=32", "--gin.gemma.Gemma.head_dim=8",
    "--gin.gemma.Gemma.mlp_dim=48", "--gin.loop.Schedule.log_every=1",
)  # fmt: skip
LANGUAGE = (*SMALL, "--gin.VOCABULARY='data/words.model'", "--gin.LENGTH=128", "--gin.sources.Joined.characters=600")
RECIPES = "recipes/embedding_gemma"
CAUSAL = ("train", f"--gin_file={RECIPES}/small_causal.gin", *LANGUAGE)
ADAPT = (
    "train",
    f"--gin_file={RECIPES}/small_adapt.gin",
    *LANGUAGE,
    "--gin.START='causal'",
    "--gin.span32/denoisers.Denoiser.mean_span=10",  # rows of 128 tokens have no room for 32
)


def losses(folder) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def digests(run) -> dict[str, str]:
    """Returns the digest of every array of the last checkpoint."""
    items = ("params", "learned", "opt_state")
    step = run / "checkpoints" / "4"
    found = {
        f"{i}/{p}": a.read().result()
        for i in items
        if (step / i).exists()
        for p, a in arrays.open_arrays(step, i).items()
    }
    return {path: hashlib.sha256(np.asarray(x).tobytes()).hexdigest() for path, x in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, run_embed):
    """A folder with pairs, a run of a causal model and one of an encoder-decoder."""
    folder = tmp_path_factory.mktemp("language")
    random, words = np.random.default_rng(0), [f"{a}{b}" for a in ("ka", "lo", "mi", "tu") for b in ("ra", "se", "no")]
    rows = [
        {"query": " ".join(random.choice(words, 6)), "positive": " ".join(random.choice(words, 20))} for _ in range(300)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": row["positive"]}) + "\n" for row in rows))
    for command, run in ((CAUSAL, "causal"), (ADAPT, "adapted")):
        done = run_embed(folder, *command, f"--run_dir={run}")
        assert done.returncode == 0, done.stderr
        (folder / f"{run}.log").write_text(done.stdout)
    return folder


@pytest.mark.long
def test_both_learn_and_say_what_they_start_from(folder):
    for run in ("causal", "adapted"):
        values = losses(folder / run)
        assert len(values) == 4 and values[-1] < values[0]
    printed = (folder / "adapted.log").read_text()
    assert (
        "the decoder starts as the encoder of causal" in printed and "its cross-attention as self-attention" in printed
    )
    assert "by 5 denoisers" in printed and printed.count(" -> ") == 3


@pytest.mark.long
def test_the_encoder_is_the_start_of_a_run_on_pairs(folder, run_embed):
    done = run_embed(
        folder, "train", f"--gin_file={RECIPES}/small_prefinetune.gin", *SMALL, "--gin.START='adapted'", "--run_dir=pairs"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    architecture = bundles.read_model_json(folder / "pairs" / "checkpoints" / "4")["architecture"]
    assert architecture["decoder"] is None and architecture["encoder"]["causal"] is False
    found = run_embed(folder, "search", "pairs", "kara", "--corpus=corpus.jsonl")
    assert found.returncode == 0 and "kara" in found.stdout, found.stderr


def test_a_model_with_a_decoder_is_served_and_exported_without_it(folder, run_embed):
    found = run_embed(folder, "search", "adapted", "kara", "--corpus=corpus.jsonl")
    assert found.returncode == 0, found.stderr
    for output, options in (("exported", ()), ("packed", ("--format=bundle", "--quantization=int8_blocks"))):
        done = run_embed(folder, "export", "adapted", output, *options)
        assert done.returncode == 0 and "note       the decoder is left out" in done.stdout, done.stderr
    assert bundles.read_model_json(folder / "packed")["architecture"]["decoder"] is None
    assert run_embed(folder, "search", "packed", "kara", "--corpus=corpus.jsonl").returncode == 0


@pytest.mark.parametrize("place", ["train.after_step_3", "checkpoint.before_manifest"])
def test_killed_and_resumed_is_the_same_to_the_bit(folder, run_embed, place):
    killed = run_embed(folder, *ADAPT, f"--run_dir={place}", EMBED_FAIL_AT=place)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run_embed(folder, *ADAPT, f"--run_dir={place}")
    assert resumed.returncode == 0, resumed.stderr
    assert digests(folder / place) == digests(folder / "adapted")


@pytest.mark.parametrize("hosts", [2, pytest.param(4, marks=pytest.mark.long)])
def test_on_several_hosts_the_losses_are_those_of_one(folder, run_on_hosts, hosts):
    run_on_hosts(folder, hosts, *ADAPT, f"--run_dir=hosts{hosts}", f"--gin.sharding.MeshShape.data={hosts}")
    np.testing.assert_allclose(losses(folder / f"hosts{hosts}"), losses(folder / "adapted"), rtol=1e-4)


def test_a_model_without_a_decoder_is_refused(folder, run_embed):
    """Before anything is trained; a binding that this leaves without effect is another error."""
    text = (
        (REPOSITORY / "gin" / RECIPES / "small_adapt.gin")
        .read_text()
        .replace("decoder/gemma.Gemma.causal = True\n", "")
    )
    (folder / "none.gin").write_text(text.replace("embedder.Embedder.decoder = @decoder/gemma.Gemma()\n", ""))
    done = run_embed(folder, "train", "--gin_file=none.gin", *ADAPT[2:], "--run_dir=none")
    assert done.returncode != 0 and "SequenceToSequence needs a model with a decoder" in done.stderr
    assert not (folder / "none" / "checkpoints").exists()


def test_spans_longer_than_the_texts_are_refused(folder, run_embed):
    done = run_embed(folder, *ADAPT, "--run_dir=short", "--gin.sources.Joined.characters=40")
    assert done.returncode != 0 and "texts are shorter than one span of the denoiser" in done.stderr
