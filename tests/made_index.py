"""Indices of made-up vectors, without a model."""

import numpy as np

from embed.index import rows, store
from embed.inference import bulk
from embed.sources.input_texts import Text

DIM = 8


def unit(count: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def write_segment(folder, vectors, prefix: str, shard_size: int = 16, fields=lambda i: {}) -> dict:
    texts = [Text(f"{prefix}{i}", f"text {prefix}{i}", "", f"c:{i}") for i in range(len(vectors))]
    job = bulk.Job(folder, "npy", "float32", shard_size, bulk.scan(lambda: texts, shard_size), {})
    job.begin()
    by_id = {t.id: v for t, v in zip(texts, vectors)}
    bulk.run(job, texts, lambda shard: (np.stack([by_id[t.id] for t in shard]), 0))
    bulk.finish(job, 0.0)
    rows.write(folder, ((t.id, {"text": t.text, "title": "", **fields(i)}) for i, t in enumerate(texts)))
    return store.segment_of(folder)


def make(folder, *parts, fields=lambda i: {}) -> store.Index:
    """Returns the index whose segments have these vectors, with ids a0, a1, ..., b0, ...

    `fields(i)` gives what the i-th document of a segment has besides an id, a text and a title.
    """
    folder.mkdir()
    description = {
        "model": "m",
        "model_digest": "d",
        "prompt": "{content}",
        "dims": DIM,
        "dtype": "float32",
        "max_length": None,
        "segments": [],
        "removed": None,
        "graph": None,
    }
    for number, vectors in enumerate(parts):
        path = store.segment_folder(folder, description)
        description["segments"].append(write_segment(path, vectors, "abcdef"[number], fields=fields))
    store.commit(folder, description)
    return store.open_index(folder)
