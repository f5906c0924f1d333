"""A checkpoint of EmbeddingGemma's size goes in, encodes and comes out within 6 GB. Slow: it is made and read in full."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from compiling import FAST

from embed.interop.families.gemma3 import GEMMA3
from embed.interop.safetensors_writer import write
from embed.interop.tensors import foreign_shapes
from embed.models.gemma import Gemma

LIMIT_GB = 6.0
DENSE = {"2_Dense": (768, 3072), "3_Dense": (3072, 768)}
# Runs a command and prints the most memory it held, in kilobytes.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "embed", *sys.argv[1:]]).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def random_tensors(shapes):
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        yield name, (random.standard_normal(shape, np.float32) * np.float32(0.02))


def encoder_shapes() -> dict[str, tuple[int, ...]]:
    """Returns the shapes of EmbeddingGemma's encoder by our paths, without drawing a parameter."""
    import jax

    from embed.models import api
    from embed.models.embedder import Embedder
    from embed.models.pooling import MeanPooling
    from embed.trees import flatten

    model = api.build(Embedder(Gemma(), MeanPooling(), (3072, 768)))
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    return {p.removeprefix("encoder/"): s.shape for p, s in shapes.items() if p.startswith("encoder/")}


def write_checkpoint(folder, tokenizer_json: bytes) -> None:
    """Writes a random checkpoint of EmbeddingGemma's shape and layout."""
    folder.mkdir()
    shapes = foreign_shapes(GEMMA3.tensors, encoder_shapes(), 24)
    write(folder / "model.safetensors", shapes, random_tensors(shapes), "float32")
    config = {"model_type": "gemma3_text", **GEMMA3.config(Gemma()), "matryoshka_dimensions": [768, 512, 256, 128]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes(tokenizer_json)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "model_max_length": 2048}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    kinds = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        *((p, "Dense") for p in DENSE),
        ("4_Normalize", "Normalize"),
    ]
    modules = [
        {"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{k}"}
        for i, (p, k) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    for place, (inputs, outputs) in DENSE.items():
        (folder / place).mkdir()
        entries = {"in_features": inputs, "out_features": outputs, "bias": False}
        identity = {"activation_function": "torch.nn.modules.linear.Identity"}
        (folder / place / "config.json").write_text(json.dumps(entries | identity))
        own = {"linear.weight": (outputs, inputs)}
        write(folder / place / "model.safetensors", own, random_tensors(own), "float32")


def measured(folder, *arguments: str) -> tuple[str, float]:
    """Returns what a command printed and the most memory it held, in GB."""
    env = {**os.environ, "XLA_FLAGS": FAST}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, int(done.stdout.split("peak")[-1]) * 1024 / 1e9


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_model_of_308_million_parameters_stays_within_six_gigabytes(tmp_path):
    from embed.data import tokenizers
    from embed.interop import tokenizer_json

    texts = [
        "the quick brown fox jumps over the lazy dog",
        "wird in vielen Sprachen",
        "seven words are enough for a text",
    ]
    (tmp_path / "words.model").write_bytes(tokenizers.train_sentencepiece(texts * 50, 290))
    vocabulary = tokenizer_json.from_sentencepiece(tokenizers.SentencePiece(str(tmp_path / "words.model")))
    write_checkpoint(tmp_path / "theirs", vocabulary)
    (tmp_path / "texts.txt").write_text("".join(f"{t} {i}\n" for i, t in enumerate(texts * 5)))
    out, convert = measured(tmp_path, "convert", "theirs", "bundle")
    assert "307,581,696 parameters" in out
    _, encode = measured(tmp_path, "encode", "bundle", "--input=texts.txt", "--output=vectors", "--format=npy")
    assert np.load(tmp_path / "vectors" / "part-00000.npy").shape == (15, 768)
    _, export = measured(tmp_path, "export", "bundle", "out")
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 1.2e9
    print(f"peak memory: convert {convert:.2f} GB, encode {encode:.2f} GB, export {export:.2f} GB")
    assert max(convert, encode, export) <= LIMIT_GB
