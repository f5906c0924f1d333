"""An index on disk against faiss and usearch used directly, exact and approximate, in turns; and the command from start to answer.

    python launch/benchmarks/index.py SOURCE [--documents=1000000] [--rounds=5] [--work=FOLDER] [--output=FOLDER]

SOURCE is a sentence-transformers folder, whose model answers `embed search`. Its documents have made-up vectors in clusters, as
encoding a million texts would take hours. Needs faiss-cpu and usearch. All approximate ones have 16 neighbours a document and a
breadth of 128. Recall is of the 10 nearest documents of 1,000 queries.
"""

import argparse
import functools
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from turns import Ratio, finish, median, spread, table, take_turns

K, QUERIES, CLUSTERS = 10, 1000, 2000
OPTIONS = {"connectivity": 16, "expansion_add": 128, "expansion_search": 128}


def vectors(documents: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns unit vectors of documents and of queries, in clusters."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLUSTERS, dims)).astype(np.float32)

    def drawn(count: int) -> np.ndarray:
        x = centres[random.integers(CLUSTERS, size=count)] + random.normal(size=(count, dims)).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    return drawn(documents), drawn(QUERIES)


def make_index(folder: pathlib.Path, model: pathlib.Path, corpus: np.ndarray) -> None:
    """Writes an index of made-up documents, as `embed index` writes it."""
    from embed.index import rows, store
    from embed.inference import bulk
    from embed.inference.model import open_model
    from embed.sources.input_texts import Text

    texts = [Text(f"d{i}", f"document {i}", "", f"made:{i}") for i in range(len(corpus))]
    segment = folder / "segment-00000"
    job = bulk.Job(segment, "npy", "float32", 8192, bulk.scan(lambda: texts, 8192), {})
    job.begin()
    bulk.run(job, texts, lambda shard: (corpus[int(shard[0].id[1:]) : int(shard[0].id[1:]) + len(shard)], 0))
    bulk.finish(job, 0.0)
    rows.write(segment, ((t.id, {"text": t.text, "title": ""}) for t in texts))
    opened = open_model(model)
    store.commit(
        folder,
        {
            "model": str(model.resolve()),
            "model_digest": opened.digest,
            "prompt": "{content}",
            "dims": corpus.shape[1],
            "dtype": "float32",
            "max_length": opened.max_length,
            "segments": [store.segment_of(segment)],
            "removed": None,
            "graph": None,
        },
    )


def recall(candidates: np.ndarray, exact: np.ndarray) -> float:
    """Returns which share of the exact nearest documents was found."""
    return float(np.mean([np.isin(e, c).mean() for c, e in zip(candidates, exact)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work")
    parser.add_argument("--output")
    arguments = parser.parse_args()
    import faiss
    from usearch.index import Index as Usearch

    from embed.index import store

    work = pathlib.Path(arguments.work or tempfile.mkdtemp(prefix="embed-index-"))
    model, folder = work / "model", work / "index"
    if not model.exists():
        subprocess.run([sys.executable, "-m", "embed", "convert", arguments.source, str(model)], check=True)
    corpus, queries = vectors(arguments.documents, 384)
    if not store.is_index(folder):
        make_index(folder, model, corpus)
    flat = faiss.IndexFlatIP(384)
    flat.add(corpus)
    exact = flat.search(queries, K)[1]

    built = {}

    def timed(name: str, make):
        started = time.perf_counter()
        value = make()
        built[name] = time.perf_counter() - started
        return value

    index = store.open_index(folder)
    if index.description["graph"] is None:
        timed("embed", lambda: store.commit(folder, store.with_graph(index, OPTIONS, lambda count: None)))
        index = store.open_index(folder)

    def of_faiss():
        graph = faiss.IndexHNSWFlat(384, OPTIONS["connectivity"], faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction, graph.hnsw.efSearch = OPTIONS["expansion_add"], OPTIONS["expansion_search"]
        graph.add(corpus)
        return graph

    def of_usearch():
        graph = Usearch(ndim=384, metric="ip", dtype="f16", **OPTIONS)
        graph.add(np.arange(len(corpus)), corpus)
        return graph

    faiss_graph, usearch_graph = timed("faiss", of_faiss), timed("usearch", of_usearch)
    some = queries[:64]
    runs = {
        "embed, exact": functools.partial(index.search, some, K, exact=True),
        "faiss flat, exact": functools.partial(flat.search, some, K),
        "embed, approximate": functools.partial(index.search, queries, K),
        "faiss HNSW": functools.partial(faiss_graph.search, queries, K),
        "usearch": functools.partial(usearch_graph.search, queries, K),
    }
    numbers = lambda best: np.array([[n for _, n in row] for row in best])  # noqa: E731
    found = {
        "embed, exact": recall(numbers(index.search(queries, K, exact=True)), exact),
        "faiss flat, exact": 1.0,
        "embed, approximate": recall(numbers(index.search(queries, K)), exact),
        "faiss HNSW": recall(faiss_graph.search(queries, K)[1], exact),
        "usearch": recall(np.asarray(usearch_graph.search(queries, K).keys), exact),
    }
    seconds = take_turns(runs, arguments.rounds)
    one = take_turns(
        {
            "approximate": functools.partial(index.search, queries[:1], K),
            "exact": functools.partial(index.search, queries[:1], K, exact=True),
        },
        arguments.rounds,
    )
    command = [sys.executable, "-m", "embed", "search", str(folder), "a query"]
    subprocess.run(command, check=True, capture_output=True)  # compiles, and verifies the files
    whole = take_turns({"command": lambda: subprocess.run(command, check=True, capture_output=True)}, arguments.rounds)
    m = {name: median(s) for name, s in seconds.items()}
    count = {name: 64 if "exact" in name else QUERIES for name in runs}
    lines = [[name, spread(s), f"{count[name] / m[name]:.0f}", f"{found[name]:.4f}"] for name, s in seconds.items()]
    ratios = [
        Ratio("faiss flat / embed, exact", m["faiss flat, exact"] / m["embed, exact"], 1.0),
        Ratio("faiss HNSW / embed, approximate", m["faiss HNSW"] / m["embed, approximate"], 0.8),
        Ratio("recall of embed, approximate / faiss HNSW", found["embed, approximate"] / found["faiss HNSW"], 0.98),
        Ratio("seconds of one approximate query", median(one["approximate"]), 0.1, True),
        Ratio("seconds of one exact query", median(one["exact"]), 1.0, True),
        Ratio("seconds from the command to its answer", median(whole["command"]), 3.0, True),
    ]
    text = f"{arguments.documents:,} documents of 384 numbers.\n\n" + table(
        ["", "seconds (least - most)", "queries/s", "recall@10"], lines
    )
    text += "\n\nGraphs were built in " + ", ".join(f"{value:.0f} s ({name})" for name, value in built.items()) + ".\n"
    finish(
        "index",
        ratios,
        {"seconds": seconds, "one": one, "command": whole, "recall": found, "built": built},
        text,
        arguments.output,
    )


if __name__ == "__main__":
    main()
