"""Exact nearest neighbours against faiss' flat index and against the bare product of matrices, in turns.

    python launch/benchmarks/search.py [--documents=250000] [--dims=768] [--rounds=5] [--output=FOLDER]

All give the 100 documents of largest inner product, the bare product only the largest value of every block. Needs faiss-cpu.
"""

import argparse
import functools

import numpy as np
from turns import Ratio, finish, median, spread, table, take_turns

K = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=250_000)
    parser.add_argument("--dims", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    import faiss
    import jax
    import jax.numpy as jnp

    from embed.inference import search

    random = np.random.default_rng(0)
    unit = lambda n: (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True))(  # noqa: E731
        random.normal(size=(n, arguments.dims)).astype(np.float32)
    )
    corpus, queries = unit(arguments.documents), {n: unit(n) for n in (64, 1024)}
    index = faiss.IndexFlatIP(arguments.dims)
    index.add(corpus)

    @jax.jit
    def product(q, block):
        return jnp.max(jnp.matmul(q, block.T, precision="highest"), 1)

    def bare(q):
        size = search.block_size(*corpus.shape)
        for i in range(0, len(corpus), size):
            product(q, corpus[i : i + size]).block_until_ready()

    runs = {}
    for n, q in queries.items():
        runs[f"embed, {n} queries"] = functools.partial(search.top_k, q, corpus, K)
        runs[f"faiss flat, {n} queries"] = functools.partial(index.search, q, K)
        runs[f"bare product, {n} queries"] = functools.partial(bare, q)
    recall = {}
    for n, q in queries.items():
        own, other = search.top_k(q, corpus, K)[1], index.search(q, K)[1]
        recall[n] = float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(own, other)]))
        bare(q)
    seconds = take_turns(runs, arguments.rounds)
    m = {name: median(s) for name, s in seconds.items()}
    sizes = {name: int(name.split(", ")[1].split()[0]) for name in runs}
    rows = [[name, spread(s), f"{sizes[name] / m[name]:.0f}"] for name, s in seconds.items()]
    ratios = [
        Ratio(f"faiss flat / embed, {n} queries", m[f"faiss flat, {n} queries"] / m[f"embed, {n} queries"], target)
        for n, target in ((64, 5.0), (1024, 1.5))
    ]
    ratios.append(
        Ratio("embed / bare product, 64 queries", m["embed, 64 queries"] / m["bare product, 64 queries"], 1.1, True)
    )
    ratios.append(Ratio("found of faiss' 100", min(recall.values()), 1.0))
    told = f"{arguments.documents:,} documents of {arguments.dims} numbers.\n\n" + table(
        ["", "seconds (least - most)", "queries/s"], rows
    )
    finish("search", ratios, {"seconds": seconds, "recall": recall}, told, arguments.output)


if __name__ == "__main__":
    main()
