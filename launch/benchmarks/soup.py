"""The average of four models of EmbeddingGemma's shape against loading all and np.mean, in turns.

    python launch/benchmarks/soup.py SOURCE [--models=4] [--rounds=4] [--folder=FOLDER] [--output=FOLDER]

SOURCE gives the tokenizer of the made-up models. Each side runs in a process of its own, after its files were put out of the
system's cache: `embed average` on bundles, the peer on safetensors. Needs about 12 GB under FOLDER (default: a temporary one).
"""

import argparse
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from turns import Ratio, finish, median, spread, table, take_turns

SHAPE = {
    "vocab_size": 262_144, "width": 768, "num_layers": 24, "num_heads": 3, "num_kv_heads": 1, "head_dim": 256, "mlp_dim": 1152,
}  # fmt: skip
MEAN = """
import sys, numpy as np
from safetensors.numpy import load_file, save_file
models = [load_file(path) for path in sys.argv[2:]]
save_file({name: np.mean([m[name] for m in models], axis=0) for name in models[0]}, sys.argv[1])
"""
PEAK = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
PEAK += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"


def make(source: str, folder: pathlib.Path, models: int) -> int:
    """Writes the models as bundles and as safetensors, and returns their number of parameters."""
    import jax
    import numpy as np
    from safetensors.numpy import save_file

    from embed import bundles, checkpoints, documents, trees
    from embed.models import api
    from embed.models.embedder import Embedder
    from embed.models.gemma import Gemma
    from embed.models.pooling import MeanPooling

    command = [sys.executable, "-m", "embed", "convert", source, str(folder / "source")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    description = bundles.read_model_json(folder / "source")
    tokenizer = bundles.tokenizer_file(folder / "source")
    model = api.build(Embedder(Gemma(**SHAPE), MeanPooling(), (), (768,)))
    description = {**description, "architecture": model.description, "matryoshka_dims": [768]}
    shapes = trees.flatten(jax.eval_shape(model.init, jax.random.key(0)))
    for number in range(models):
        random = np.random.default_rng(number)
        leaves = {path: 0.02 * random.standard_normal(s.shape, np.float32) for path, s in shapes.items()}
        contents = bundles.contents(description, tokenizer.name, tokenizer.read_bytes())
        checkpoints.write_bundle(folder / f"bundle-{number}", trees.unflatten(leaves), contents)
        save_file(leaves, folder / f"{number}.safetensors")
    assert documents.read_json(folder / "bundle-0" / "model.json")
    return sum(int(np.prod(s.shape)) for s in shapes.values())


def forget(folder: pathlib.Path) -> None:
    """Puts the files under `folder` out of the system's cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as f:
                os.fsync(f.fileno())
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--folder")
    parser.add_argument("--output")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        folder = pathlib.Path(folder)
        parameters = make(arguments.source, folder, arguments.models)
        numbers = range(arguments.models)
        # The models share no ancestor, which the tool would refuse.
        ours = [
            sys.executable, "-m", "embed", "average", *(str(folder / f"bundle-{n}") for n in numbers),
            f"--output={folder / 'soup'}", "--unrelated",
        ]  # fmt: skip
        peer = [sys.executable, "-c", MEAN, str(folder / "mean.safetensors")]
        peer += [str(folder / f"{n}.safetensors") for n in numbers]
        peak: dict[str, list[float]] = {"embed average": [], "load all, np.mean": []}

        def run(name: str, command) -> None:
            done = subprocess.run([sys.executable, "-c", PEAK, *command], check=True, capture_output=True, text=True)
            peak[name].append(1024 * int(done.stdout.split()[-1]))

        def prepare() -> None:
            shutil.rmtree(folder / "soup", ignore_errors=True)
            (folder / "mean.safetensors").unlink(missing_ok=True)
            forget(folder)

        seconds: dict[str, list[float]] = {name: [] for name in peak}
        for _ in range(arguments.rounds):
            for name, command in (("embed average", ours), ("load all, np.mean", peer)):
                prepare()
                seconds[name] += take_turns({name: functools.partial(run, name, command)}, 1)[name]
    m = {name: median(s) for name, s in seconds.items()}
    rows = [[n, spread(s), f"{median(peak[n]) / 1e9:.2f}"] for n, s in seconds.items()]
    ratios = [
        Ratio("load all / embed, seconds", m["load all, np.mean"] / m["embed average"], 4.0),
        Ratio("peak memory of embed, GB", median(peak["embed average"]) / 1e9, 0.2, at_most=True),
    ]
    told = f"{arguments.models} models of {parameters:,} parameters, float32, read from disk.\n\n"
    told += table(["", "seconds (least - most)", "peak memory, GB"], rows)
    finish("soup", ratios, {"seconds": seconds, "peak_bytes": peak, "parameters": parameters}, told, arguments.output)


if __name__ == "__main__":
    main()
