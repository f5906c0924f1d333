"""Encoding and training of a model of EmbeddingGemma's shape on one GPU in bfloat16, beside sentence-transformers on that card.

    python launch/benchmarks/accelerator.py [--pairs=8192] [--length=128] [--texts=20000] [--rounds=3] [--output=FOLDER]

The weights are random and the texts made up: words of one token each, of mixed lengths to encode, of LENGTH tokens to train on.
Both sides run end to end, tokenisation included: `embed.load(...).encode` and `embed train` (cached gradients where memory wants
them) against SentenceTransformer.encode and CachedMultipleNegativesRankingLoss, with FlashAttention where it is installed and
PyTorch's own attention elsewhere. MFU counts real tokens by the model's formula against the largest product of matrices measured
here. --tiny tries the script on a CPU. Needs jax for the GPU, torch, transformers and sentence-transformers.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer needs the card too

import numpy as np
from turns import Ratio, finish, median, our_steps, spread, table

WORDS = 20_000
SHAPE = {"vocab_size": 262_144, "hidden_size": 768, "num_hidden_layers": 24, "intermediate_size": 1152, "head_dim": 256}
TINY = {"vocab_size": 21_000, "hidden_size": 48, "num_hidden_layers": 2, "intermediate_size": 48, "head_dim": 16}


def make(folder: pathlib.Path, tiny: bool) -> None:
    """Writes a sentence-transformers folder with random weights of EmbeddingGemma's shape."""
    import torch
    from sentence_transformers import SentenceTransformer, models
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import Gemma3TextConfig, Gemma3TextModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    shape = TINY if tiny else SHAPE
    config = Gemma3TextConfig(
        **shape, num_attention_heads=3, num_key_value_heads=1, use_bidirectional_attention=True, sliding_window=512,
        query_pre_attn_scalar=shape["head_dim"], max_position_embeddings=2048,
    )  # fmt: skip
    Gemma3TextModel(config).save_pretrained(folder / "inner")
    words = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, **{f"w{i}": 4 + i for i in range(WORDS)}}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = {f"{n}_token": f"<{n}>" for n in ("pad", "eos", "bos", "unk")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder / "inner")
    inner = models.Transformer(str(folder / "inner"), max_seq_length=1024)
    size = shape["hidden_size"]
    parts = [
        models.Pooling(size, "mean"),
        models.Dense(size, 4 * size, bias=False, activation_function=torch.nn.Identity()),
        models.Dense(4 * size, size, bias=False, activation_function=torch.nn.Identity()),
        models.Normalize(),
    ]
    SentenceTransformer(modules=[inner, *parts], device="cpu").save(str(folder / "model"))


def texts(count: int, lengths) -> list[str]:
    """Returns texts of these numbers of words."""
    random = np.random.default_rng(0)
    return [" ".join(f"w{i}" for i in random.integers(0, WORDS, n)) for n in lengths[:count]]


def mixed(count: int, most: int) -> np.ndarray:
    """Returns lengths with a long tail, as documents have."""
    return np.clip(np.random.default_rng(1).lognormal(np.log(60), 0.9, count), 4, most).astype(int)


def flops(bundle: pathlib.Path, lengths) -> float:
    """Returns the FLOPs that the model needs for texts of these lengths, forward."""
    from embed import bundles
    from embed.models import api

    model = api.build(api.from_description(bundles.read_model_json(bundle)["architecture"]))
    values, counts = np.unique(np.asarray(lengths), return_counts=True)
    return float(sum(c * model.methods["text"].flops(int(n)) for n, c in zip(values, counts)))


def side_encode(side: str, folder: pathlib.Path, arguments) -> None:
    """Encodes in this process, and prints the seconds of each round after one that compiles and warms up."""
    lengths = mixed(arguments.texts, 48 if arguments.tiny else 1024)
    own = texts(arguments.texts, lengths)
    if side == "ours":
        import embed

        model = embed.load(folder / "bundle", dtype="bfloat16")
        run = lambda: model.encode(own, prompt="none")  # noqa: E731
    else:
        model = peer_model(folder)
        run = lambda: model.encode(own, batch_size=arguments.peer_batch, convert_to_tensor=True).float().cpu().numpy()  # noqa: E731
    seconds = []
    for _ in range(arguments.rounds + 1):
        began = time.perf_counter()
        vectors = run()
        seconds.append(time.perf_counter() - began)
    np.save(folder / f"{side}.npy", np.asarray(vectors[:200], np.float32))
    print(json.dumps({"seconds": seconds[1:]}), flush=True)


def peer_model(folder: pathlib.Path):
    import torch
    from sentence_transformers import SentenceTransformer

    attention = "flash_attention_2" if importlib.util.find_spec("flash_attn") else "sdpa"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kwargs = {"dtype": torch.bfloat16, "attn_implementation": attention}
    return SentenceTransformer(str(folder / "model"), device=device, model_kwargs=kwargs)


def sizes(arguments) -> tuple[int, ...]:
    """Returns the Matryoshka sizes of both sides."""
    return (48, 16) if arguments.tiny else (768, 512, 256, 128)


def side_train(side: str, folder: pathlib.Path, arguments) -> None:
    """Trains in this process and prints the seconds of each step but the first."""
    if side == "ours":
        given = {
            "BATCH_SIZE": arguments.pairs,
            "TRAIN_STEPS": arguments.steps + 2,
            "MATRYOSHKA_DIMS": sizes(arguments),
            "recipe.Recipe.model_changes": {"encoder.dtype": "bfloat16", "encoder.remat": arguments.remat},
            "text_features.Lengths.query": arguments.length,
            "text_features.Lengths.target": arguments.length,
        }
        seconds = our_steps(folder, folder / "bundle", folder / "pairs.jsonl", given)[2:]
    else:
        import torch
        from sentence_transformers import losses

        model = peer_model(folder).train()
        model.max_seq_length = arguments.length
        cached = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=arguments.peer_batch)
        loss = losses.MatryoshkaLoss(model, cached, list(sizes(arguments)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=torch.cuda.is_available())
        rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()][: arguments.pairs]
        seconds = []
        for _ in range(arguments.steps + 1):
            began = time.perf_counter()
            features = [
                {
                    k: v.to(model.device)
                    for k, v in model.tokenize([row[side] for row in rows]).items()
                    if hasattr(v, "to")
                }
                for side in ("query", "positive")
            ]
            optimizer.zero_grad()
            loss(features, None).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        seconds = seconds[1:]
    print(json.dumps({"seconds": seconds}), flush=True)


def peak() -> float:
    """Returns the FLOPs a second of the largest product of matrices in bfloat16, of random values, measured here."""
    import jax
    import jax.numpy as jnp

    size = 8192 if jax.default_backend() != "cpu" else 1024
    x = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    product = jax.jit(lambda x: jnp.matmul(x, x, preferred_element_type=jnp.float32).astype(jnp.bfloat16))
    product(x).block_until_ready()
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        product(x).block_until_ready()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": 2 * size**3 / median(seconds), "device": jax.devices()[0].device_kind}), flush=True)
    return 0.0


def child(what: str, folder: pathlib.Path) -> dict:
    """Runs one side in a process of its own, so that it has the card to itself, and returns what it prints last."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--what={what}", f"--folder={folder}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("pairs", 8192),
        ("length", 128),
        ("texts", 20_000),
        ("steps", 4),
        ("rounds", 3),
        ("peer_batch", 128),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--remat", default="none")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--jobs", default="encode,train")
    parser.add_argument("--output")
    for name in ("what", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.what:
        job, _, side = arguments.what.partition(" ")
        own = {"encode": side_encode, "train": side_train}
        peak() if job == "peak" else own[job](side, pathlib.Path(arguments.folder), arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        make(folder, arguments.tiny)
        command = [sys.executable, "-m", "embed", "convert", str(folder / "model"), str(folder / "bundle")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = texts(2 * 2 * arguments.pairs, [arguments.length] * (4 * arguments.pairs))
        pairs = [{"query": q, "positive": p} for q, p in zip(rows[::2], rows[1::2])]
        (folder / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
        found = child("peak", folder)
        most, device = found["seconds"], found["device"]
        rows, ratios, details = [], [], {"device": device, "peak": most}
        for job in arguments.jobs.split(","):
            lengths = mixed(arguments.texts, 48 if arguments.tiny else 1024)
            count = arguments.texts if job == "encode" else arguments.pairs
            needed = flops(folder / "bundle", lengths if job == "encode" else [arguments.length] * 2 * arguments.pairs)
            needed *= 1 if job == "encode" else 3
            m = {}
            for side, name in (("ours", "embed"), ("peer", "sentence-transformers")):
                seconds = child(f"{job} {side}", folder)["seconds"]
                m[side], details[f"{job} {side}"] = median(seconds), seconds
                unit = f"{count / m[side]:,.0f}"
                rows.append([f"{job}: {name}", spread(seconds), unit, f"{needed / m[side] / most:.1%}"])
            ratios.append(Ratio(f"{job}: peer / embed, seconds", m["peer"] / m["ours"], 2.0))
            share = needed / m["ours"] / most
            ratios.append(Ratio(f"{job}: MFU of real tokens", share, {"encode": 0.45, "train": 0.40}[job]))
        if "encode" in arguments.jobs:
            ours, theirs = np.load(folder / "ours.npy"), np.load(folder / "peer.npy")
            cosine = np.sum(ours * theirs, 1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
            ratios.append(Ratio("least cosine with the peer's bfloat16", float(cosine.min()), digits=5))
    head = ["", "seconds (least - most)", "texts or pairs a second", "MFU"]
    told = f"{device}; {most / 1e12:.0f} TFLOP/s measured. {arguments.texts:,} texts of mixed lengths; {arguments.pairs:,} pairs "
    told += f"of {arguments.length} tokens a batch.\n\n{table(head, rows)}"
    finish("accelerator", ratios, details, told, arguments.output)


if __name__ == "__main__":
    main()
