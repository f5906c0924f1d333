"""Training beside sentence-transformers, in turns: a plain batch, or a large one in cached gradients.

    python launch/benchmarks/train.py SOURCE [--job=train|cached] [--rounds=3] [--output=FOLDER]

SOURCE is a sentence-transformers folder, such as all-MiniLM-L6-v2. Both sides train it on the same pairs of texts of LENGTH tokens,
PAIRS a batch, with Matryoshka sizes, clipping and AdamW, each round in a process of its own. `train` compares float32 and bfloat16
(the peer's by autocast) at 64 pairs; `cached` speed and memory at 512 pairs in float32, where embed takes MICRO pairs at once
(few cost it no speed) and the peer PEER_MICRO texts, its own default. The first step, which compiles or warms up, is left out.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile

from turns import Ratio, finish, median, our_steps, spread, table

DIMS = (384, 256, 128, 64)


def write_pairs(path: pathlib.Path, source: str, count: int, length: int) -> None:
    """Writes pairs of texts that are `length` tokens long, or longer and cut there."""
    vocabulary = json.loads((pathlib.Path(source) / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = sorted(w for w in vocabulary if w.isascii() and w.isalpha() and len(w) > 3)
    choose = random.Random(0)
    with open(path, "w", encoding="utf-8") as f:
        for _ in range(count):
            texts = [" ".join(choose.choices(words, k=length)) for _ in range(2)]
            f.write(json.dumps({"query": texts[0], "positive": texts[1]}) + "\n")


def ours(arguments, folder: pathlib.Path, dtype: str) -> None:
    """Trains with `embed train` and prints the seconds of each step."""
    given = {
        "BATCH_SIZE": arguments.pairs,
        "TRAIN_STEPS": arguments.steps + 1,
        "recipe.Recipe.micro_batches": arguments.pairs // arguments.micro if arguments.job == "cached" else 1,
        "recipe.Recipe.model_changes": {"encoder.dtype": dtype},
        "text_features.Lengths.query": arguments.length,
        "text_features.Lengths.target": arguments.length,
    }
    report(our_steps(folder, arguments.source, folder / "pairs.jsonl", given)[1:])


def peer(arguments, folder: pathlib.Path, dtype: str) -> None:
    """Trains with sentence-transformers and prints the seconds of each step."""
    import time

    import torch
    from sentence_transformers import SentenceTransformer, losses

    model = SentenceTransformer(arguments.source, device="cpu")
    model.max_seq_length = arguments.length
    model.train()
    if arguments.job == "cached":
        inner = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=arguments.peer_micro)
    else:
        inner = losses.MultipleNegativesRankingLoss(model)
    loss = losses.MatryoshkaLoss(model, inner, list(DIMS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    seconds = []
    for step in range(arguments.steps + 1):
        began = time.perf_counter()
        own = [rows[(step * arguments.pairs + i) % len(rows)] for i in range(arguments.pairs)]
        features = [model.tokenize([row[side] for row in own]) for side in ("query", "positive")]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            value = loss(features, None)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    report(seconds[1:])


def report(seconds: list[float]) -> None:
    """Prints what the parent reads."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": statistics.median(seconds), "peak_bytes": peak}), flush=True)


def measured(side: str, dtype: str, folder: pathlib.Path) -> dict:
    """Returns what one side took, in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--side={side}", f"--dtype={dtype}", f"--folder={folder}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if side == "ours":
        environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # as the command line sets it for itself
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


SIDES = {
    "train": [("ours", "float32"), ("ours", "bfloat16"), ("peer", "float32"), ("peer", "bfloat16")],
    "cached": [("ours", "float32"), ("peer", "float32")],
}
SIZES = {"train": {"pairs": 64, "steps": 12}, "cached": {"pairs": 512, "steps": 3}}
NAMES = {"ours": "embed", "peer": "sentence-transformers"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--job", choices=tuple(SIDES), default="train")
    for name, default in (
        ("pairs", None),
        ("steps", None),
        ("length", 64),
        ("micro", 2),
        ("peer_micro", 32),
        ("rounds", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--output")
    for name in ("side", "dtype", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for name, size in SIZES[arguments.job].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, size)
    if arguments.side:
        {"ours": ours, "peer": peer}[arguments.side](arguments, pathlib.Path(arguments.folder), arguments.dtype)
        return
    sides = SIDES[arguments.job]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_pairs(folder / "pairs.jsonl", arguments.source, arguments.pairs * (arguments.steps + 1), arguments.length)
        for side, dtype in sides:
            if side == "ours":
                measured(side, dtype, folder)  # prepares the token cache and compiles; not counted
        rounds = {both: [] for both in sides}
        for number in range(arguments.rounds):
            for (side, dtype), found in rounds.items():
                found.append(measured(side, dtype, folder))
                print(f"round {number + 1} of {arguments.rounds}: {NAMES[side]} {dtype} {found[-1]}", flush=True)
    seconds, peak = ({both: [r[k] for r in own] for both, own in rounds.items()} for k in ("seconds", "peak_bytes"))
    rows = [
        [
            f"{NAMES[both[0]]} {both[1]}",
            spread(seconds[both]),
            f"{arguments.pairs / median(seconds[both]):.1f}",
            f"{median(peak[both]) / 1e9:.2f}",
        ]
        for both in sides
    ]
    text = table(["", "seconds a step (least - most)", "examples/s", "peak memory, GB"], rows)
    base = ("peer", "float32")
    speed = {both: median(seconds[base]) / median(seconds[both]) for both in sides}
    memory = median(peak["ours", "float32"]) / median(peak[base])
    if arguments.job == "cached":
        ratios = [
            Ratio("peak memory / peer's", memory, 0.6, at_most=True),
            Ratio("speed / peer's", speed["ours", "float32"], 1.0),
        ]
    else:
        ratios = [
            Ratio("float32 / peer's float32", speed["ours", "float32"], 1.0),
            Ratio("bfloat16 / peer's float32", speed["ours", "bfloat16"], 1.5),
            Ratio("bfloat16 / peer's bfloat16", speed["ours", "bfloat16"] / speed["peer", "bfloat16"]),
            Ratio("peak memory / peer's, float32", memory),
        ]
    told = f"{arguments.pairs} pairs of texts of {arguments.length} tokens a batch.\n\n{text}"
    details = {"rounds": {f"{side} {dtype}": own for (side, dtype), own in rounds.items()}}
    finish(arguments.job, ratios, details, told, arguments.output)


if __name__ == "__main__":
    main()
