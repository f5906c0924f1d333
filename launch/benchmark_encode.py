"""Encoding speed against sentence-transformers, interleaved in one run on this machine.

    python launch/benchmark_encode.py FOLDER [--texts=FILE.jsonl] [--rounds=5] [--output=encode.json]

FOLDER is a sentence-transformers folder; it is converted first. Both encode the same texts end to end, tokenisation included,
after a warm-up. Needs the extra [export]. Prints medians, spread and ratios, the share of padding and the compiled shapes.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import numpy as np


def read_texts(path, count):
    """Returns `count` texts of a jsonl file with the field text, or texts of mixed lengths made up from a fixed seed."""
    if path:
        with open(path, encoding="utf-8") as f:
            return [json.loads(line)["text"] for line in f][:count]
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), random.integers(2, 9))) for _ in range(3000)]
    lengths = np.clip(random.lognormal(np.log(22), 0.9, count), 2, 180).astype(int)
    return [" ".join(random.choice(words, n)) for n in lengths]


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
        rows = ours["float32"].encoder.tokens(texts, "none")
        batches = ours["float32"].encoder.plan(rows)
        tokens = sum(map(len, rows))
        vectors = {name: run() for name, run in runs.items()}  # compiles and warms up
        seconds = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    base = "sentence-transformers float32"
    cosine = {n: float(np.min(np.sum(v * vectors[base], 1) / np.linalg.norm(v, axis=1))) for n, v in vectors.items()}
    median = {name: statistics.median(s) for name, s in seconds.items()}
    padding = 1 - tokens / packing.padded_tokens(batches)
    print(
        f"{len(texts)} texts, {tokens} tokens; ours: {padding:.1%} padding, {len(packing.shapes(batches))} compiled shapes"
    )
    print("| | seconds (min - max) | texts/s | tokens/s | min cosine | ratio |\n|---|---:|---:|---:|---:|---:|")
    for name, s in seconds.items():
        m = median[name]
        print(
            f"| {name} | {m:.2f} ({min(s):.2f} - {max(s):.2f}) | {len(texts) / m:.0f} | {tokens / m:.0f} "
            f"| {cosine[name]:.6f} | {median[base] / m:.2f}x |"
        )
    if arguments.output:
        result = {"texts": len(texts), "tokens": tokens, "padding": padding, "shapes": len(packing.shapes(batches))}
        result |= {"seconds": seconds, "min_cosine": cosine, "threads": arguments.threads}
        pathlib.Path(arguments.output).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
