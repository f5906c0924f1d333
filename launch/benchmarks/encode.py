"""Encoding speed against sentence-transformers, in turns on this machine.

    python launch/benchmarks/encode.py FOLDER [--texts=FILE.jsonl] [--rounds=5] [--output=FOLDER]

FOLDER is a sentence-transformers folder; it is converted first. Both encode the same texts end to end, tokenisation included,
after a warm-up, each as it is by default. Prints medians, spread and ratios, the share of padding and the compiled shapes.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import numpy as np
from turns import Ratio, finish, median, spread, table, take_turns


def read_texts(path, count):
    """Returns up to `count` texts: a jsonl file's field text, or paragraphs of mixed lengths of Python's own reference."""
    if path:
        with open(path, encoding="utf-8") as f:
            return [json.loads(line)["text"] for line in f][:count]
    from pydoc_data.topics import topics

    paragraphs = sorted({" ".join(p.split()) for topic in topics.values() for p in topic.split("\n\n")})
    paragraphs = [p for p in paragraphs if len(p.split()) >= 3]
    return [paragraphs[i] for i in np.random.default_rng(0).permutation(len(paragraphs))[:count]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--texts")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output")
    arguments = parser.parse_args()
    import torch
    from sentence_transformers import SentenceTransformer

    import embed
    from embed.inference import packing

    torch.set_num_threads(arguments.threads)
    texts = read_texts(arguments.texts, arguments.count)
    with tempfile.TemporaryDirectory() as work:
        bundle = pathlib.Path(work) / "bundle"
        command = [sys.executable, "-m", "embed", "convert", arguments.folder, str(bundle)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ours = {dtype: embed.load(bundle, dtype=dtype) for dtype in ("float32", "bfloat16")}
        peers = {
            "float32": SentenceTransformer(arguments.folder, device="cpu"),
            "bfloat16": SentenceTransformer(
                arguments.folder, device="cpu", model_kwargs={"torch_dtype": torch.bfloat16}
            ),
        }
        runs = {
            **{f"embed {d}": (lambda m=m: m.encode(texts, prompt="none")) for d, m in ours.items()},
            **{
                f"sentence-transformers {d}": (
                    lambda m=m: np.asarray(m.encode(texts, batch_size=32, convert_to_tensor=True).float())
                )
                for d, m in peers.items()
            },
        }
        rows = ours["float32"].encoder.texts.tokens(texts, "none")
        batches = ours["float32"].encoder.texts.plan(rows)
        tokens = sum(map(len, rows))
        vectors = {name: run() for name, run in runs.items()}  # compiles and warms up
        seconds = take_turns(runs, arguments.rounds)
    base, half = "sentence-transformers float32", "sentence-transformers bfloat16"
    cosine = {n: float(np.min(np.sum(v * vectors[base], 1) / np.linalg.norm(v, axis=1))) for n, v in vectors.items()}
    m = {name: median(s) for name, s in seconds.items()}
    real, shapes = tokens / packing.padded_tokens(batches), len(packing.shapes(batches))
    rows = [
        [n, spread(s), f"{len(texts) / m[n]:.0f}", f"{tokens / m[n]:.0f}", f"{cosine[n]:.6f}", f"{m[base] / m[n]:.2f}"]
        for n, s in seconds.items()
    ]
    head = ["", "seconds (least - most)", "texts/s", "tokens/s", "least cosine", "times float32 of the peer"]
    ratios = [
        Ratio("float32 / peer's float32", m[base] / m["embed float32"], 1.3),
        Ratio("bfloat16 / peer's float32", m[base] / m["embed bfloat16"], 3.0),
        Ratio("bfloat16 / peer's bfloat16", m[half] / m["embed bfloat16"], 1.0),
        Ratio("least cosine, bfloat16", cosine["embed bfloat16"], 0.9999, digits=6),
        Ratio("real / processed tokens", real, 0.95, digits=3),
    ]
    told = f"{len(texts)} texts, {tokens} tokens; {shapes} compiled shapes.\n\n{table(head, rows)}"
    details = {"texts": len(texts), "tokens": tokens, "shapes": shapes, "seconds": seconds, "cosine": cosine}
    finish("encode", ratios, {**details, "threads": arguments.threads}, told, arguments.output)


if __name__ == "__main__":
    main()
