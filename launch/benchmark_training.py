"""Training with a large batch, in cached gradients, beside sentence-transformers' cached loss, interleaved in one run.

    python launch/benchmark_training.py SOURCE [--pairs=512] [--length=64] [--micro=2] [--peer_micro=32] [--steps=3] [--rounds=3]

SOURCE is a sentence-transformers folder, such as all-MiniLM-L6-v2. Both sides train it on the same pairs of texts of LENGTH tokens,
PAIRS a batch, with Matryoshka sizes and AdamW in float32: embed takes MICRO pairs at once (few cost it no speed), the peer
PEER_MICRO texts (its own default). Prints seconds a step (the first, which compiles
or warms up, left out) and the peak of resident memory, medians over the rounds, and ratios. Needs the extras [export].
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


def ours(arguments, folder: pathlib.Path) -> None:
    """Trains with `embed train` and prints the seconds of each step."""
    from embed.commands.main import main

    given = {
        "SOURCE": repr(arguments.source),
        "PAIRS": repr(str(folder / "pairs.jsonl")),
        "CACHE_DIR": repr(str(folder / "cache")),
        "BATCH_SIZE": arguments.pairs,
        "TRAIN_STEPS": arguments.steps + 1,
        "CHECKPOINT_EVERY": 1000,
        "WARMUP_STEPS": 0,
        "recipe.Recipe.num_negatives": 0,
        "recipe.Recipe.micro_batches": arguments.pairs // arguments.micro,
        "encoding.Lengths.query": arguments.length,
        "encoding.Lengths.target": arguments.length,
        "loop.Schedule.log_every": 1,
    }
    run_dir = tempfile.mkdtemp(dir=folder)
    recipe = "--gin_file=gin/recipes/finetune_sentence_transformer.gin"
    try:
        main(["train", recipe, f"--run_dir={run_dir}", *(f"--gin.{k}={v}" for k, v in given.items())])
    except SystemExit as e:
        if e.code:
            raise
    rows = map(json.loads, (pathlib.Path(run_dir) / "metrics.jsonl").read_text().splitlines())
    report([row["seconds_per_step"] for row in rows if row["kind"] == "train"][1:])


def peer(arguments, folder: pathlib.Path) -> None:
    """Trains with sentence-transformers and prints the seconds of each step."""
    import time

    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.losses import CachedMultipleNegativesRankingLoss, MatryoshkaLoss

    model = SentenceTransformer(arguments.source, device="cpu")
    model.max_seq_length = arguments.length
    model.train()
    loss = MatryoshkaLoss(
        model, CachedMultipleNegativesRankingLoss(model, mini_batch_size=arguments.peer_micro), list(DIMS)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01)
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    seconds = []
    for step in range(arguments.steps + 1):
        began = time.perf_counter()
        own = [rows[(step * arguments.pairs + i) % len(rows)] for i in range(arguments.pairs)]
        features = [model.tokenize([row[side] for row in own]) for side in ("query", "positive")]
        optimizer.zero_grad()
        loss(features, None).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    report(seconds[1:])


def report(seconds: list[float]) -> None:
    """Prints what the parent reads."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": statistics.median(seconds), "peak_bytes": peak}), flush=True)


def measured(side: str, folder: pathlib.Path) -> dict:
    """Returns what one side took, in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--side={side}", f"--folder={folder}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if side == "ours":
        environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # as the command line sets it for itself
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    for name, default in (
        ("pairs", 512),
        ("length", 64),
        ("micro", 2),
        ("peer_micro", 32),
        ("steps", 3),
        ("rounds", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        {"ours": ours, "peer": peer}[arguments.side](arguments, pathlib.Path(arguments.folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_pairs(folder / "pairs.jsonl", arguments.source, arguments.pairs * (arguments.steps + 1), arguments.length)
        measured("ours", folder)  # prepares the token cache and compiles; not counted
        rounds = {side: [] for side in ("ours", "peer")}
        for number in range(arguments.rounds):
            for side, found in rounds.items():
                found.append(measured(side, folder))
                print(f"round {number + 1} {side}: {found[-1]}", flush=True)
    median = {s: {k: statistics.median(r[k] for r in own) for k in own[0]} for s, own in rounds.items()}
    print("\n| | seconds a step | examples/s | peak memory, GB |\n|---|---:|---:|---:|")
    for side, name in (("ours", "embed"), ("peer", "sentence-transformers, cached")):
        own = median[side]
        print(
            f"| {name} | {own['seconds']:.2f} | {arguments.pairs / own['seconds']:.1f} | {own['peak_bytes'] / 1e9:.2f} |"
        )
    speed = median["peer"]["seconds"] / median["ours"]["seconds"]
    print(
        f"\nspeed {speed:.2f} times, memory {median['ours']['peak_bytes'] / median['peer']['peak_bytes']:.2f} times the peer's"
    )


if __name__ == "__main__":
    main()
