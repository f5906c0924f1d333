"""The real all-MiniLM-L6-v2 in our models: its vectors and scores are those of sentence-transformers on the original."""

import csv
import functools
import gzip
import json
import os
import pathlib

import jax
import numpy as np
import pytest
from parity_foreign import embed, open_reported
from scipy import stats

from embed.evaluation import runner, suites
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.views import View
from embed.inference import model as inference
from embed.inference import search
from embed.text import clean, template

TOLERANCE = 1e-5
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
RETRIEVAL = {"medquad": "retrieval/medquad", "nl2bash": "code-search/nl2bash-dev"}


@pytest.fixture(scope="session")
def data() -> pathlib.Path:
    """The folder of shared data: $EMBED_SHARED_DATA, or beside the checkout."""
    folder = pathlib.Path(os.environ.get("EMBED_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "retrieval" / "medquad").is_dir():
        pytest.skip("needs the shared data; set EMBED_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def bundle(minilm, tmp_path_factory) -> pathlib.Path:
    """The converted model."""
    folder = tmp_path_factory.mktemp("minilm") / "bundle"
    assert embed("convert", minilm, folder) == 0
    return folder


@pytest.fixture(scope="session")
def ours(bundle):
    return inference.open_model(bundle)


@pytest.fixture(scope="session")
def original(minilm):
    model, said = open_reported(minilm)
    assert said == []
    return model


def encoded(model, texts) -> np.ndarray:
    return np.asarray(model.encode(list(texts), batch_size=32, show_progress_bar=False), np.float32)


def json_lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def table(path):
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def mixed_texts(data, count: int) -> list[str]:
    """Returns `count` different clean texts, the same number from every file of many languages and lengths."""
    pools = [[row[k] for row in json_lines(p) for k in ("query", "positive")] for p in sorted(data.glob("train/*l.gz"))]
    pools += [[r["text"] for r in json_lines(p)] for p in sorted(data.glob("retrieval/*/corpus.jsonl.gz"))]
    pools += [[r["sentence1"] for r in table(p)] for p in sorted(data.glob("sts/*.tsv.gz"))]
    share = -(-count // len(pools))
    picked = [pool[i] for pool in pools for i in np.linspace(0, len(pool) - 1, share + 3).astype(int)]
    texts = list(dict.fromkeys(text for text in map(clean, picked) if text))
    return [texts[i] for i in np.linspace(0, len(texts) - 1, count).astype(int)]


def largest(a, b) -> float:
    assert a.shape == b.shape and np.all(np.isfinite(a)) and np.all(np.isfinite(b))
    return float(np.max(np.abs(a - b)))


def test_a_few_texts(ours, original, record_property):
    texts = ["a", "The cat sat on the mat.", "Die Königin von Zürich", "東京は日本の首都です。", "word " * 400]
    texts = [clean(text) for text in texts]
    error = largest(ours.encode(texts, prompt="none"), encoded(original, texts))
    record_property("largest_error", float(error))
    assert error <= TOLERANCE
    assert float(np.dot(*encoded(original, texts[:2]))) < 0.9


def test_bundle_says_what_the_folder_says(ours):
    assert ours.max_length == 256
    assert ours.matryoshka_dims == (384,)
    assert set(ours.prompts.values()) == {"{content}"}


def test_a_short_text_in_a_long_row(ours):
    # Accelerators run rows of 1,024 tokens; behind a short text there is more padding than the model has positions.
    tokens = np.zeros((1, 640), np.int32)
    segments = np.zeros((1, 640), np.int32)
    ids = ours.encoder.texts.tokens(["The cat sat on the mat."], "none")[0]
    tokens[0, : len(ids)], segments[0, : len(ids)] = ids, 1
    found = np.asarray(
        jax.jit(functools.partial(ours.encoder.model.apply, max_segments=1))(
            ours.params, {"tokens": tokens, "segment_ids": segments}
        )
    )
    assert largest(found[:, 0], ours.encode(["The cat sat on the mat."], prompt="none")) <= TOLERANCE


@pytest.mark.slow
def test_five_hundred_texts(data, ours, original, record_property):
    texts = mixed_texts(data, 500)
    assert len(set(texts)) == 500
    lengths = [len(ids) for ids in ours.encoder.texts.tokens(texts, "none")]
    assert max(lengths) == 256 and min(lengths) < 8
    error = largest(ours.encode(texts, prompt="none"), encoded(original, texts))
    record_property("largest_error", float(error))
    assert error <= TOLERANCE


@pytest.mark.slow
def test_export_gives_the_same_vectors(data, ours, bundle, tmp_path, record_property):
    assert embed("export", bundle, tmp_path / "export") == 0
    assert embed("verify", tmp_path / "export") == 0
    exported, said = open_reported(tmp_path / "export")
    assert said == []
    texts = mixed_texts(data, 100)
    error = largest(ours.encode(texts, prompt="none"), encoded(exported, texts))
    record_property("largest_error", float(error))
    assert error <= TOLERANCE


def plain_ndcg(queries, corpus, query_ids, corpus_ids, judged) -> float:
    """Returns mean nDCG@10 over the judged queries; equal scores by falling id."""
    scores = []
    rank = np.argsort(np.argsort(corpus_ids))
    for query_id, query in zip(query_ids, queries):
        if query_id not in judged:
            continue
        found = corpus @ query
        order = np.lexsort((-rank, -found))[:10]
        gains = [judged[query_id].get(corpus_ids[i], 0) for i in order]
        best = sorted(judged[query_id].values(), reverse=True)[:10]
        dcg, ideal = (sum(g / np.log2(place + 2) for place, g in enumerate(values)) for values in (gains, best))
        scores.append(dcg / ideal)
    return float(np.mean(scores))


def scored(model, folder, kind: str, path) -> dict[str, float]:
    """Returns our scores on the files of one task; the suite that names it is written into `folder`."""
    (folder / "suite.json").write_text(json.dumps({"tasks": [{"name": "task", "type": kind, "path": str(path)}]}))
    embeddings = Embeddings(model.encode, functools.partial(template, prompts=model.prompts))
    found = runner.run(suites.read_suite(folder / "suite.json"), embeddings, [View(384)], search.top_k)
    return found.scores["task"]["384"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", RETRIEVAL)
def test_retrieval_scores(name, data, ours, original, tmp_path, record_property):
    folder = data / RETRIEVAL[name]
    queries, corpus = (json_lines(folder / f"{part}.jsonl.gz") for part in ("queries", "corpus"))
    judged: dict[str, dict[str, float]] = {}
    for row in table(folder / "qrels.tsv.gz"):
        if float(row["score"]) > 0:
            judged.setdefault(row["query-id"], {})[row["corpus-id"]] = float(row["score"])
    assert not any("title" in document for document in corpus)
    vectors = [encoded(original, [clean(r["text"]) for r in rows]) for rows in (queries, corpus)]
    expected = plain_ndcg(*vectors, [q["id"] for q in queries], [d["id"] for d in corpus], judged)
    found = scored(ours, tmp_path, "retrieval", folder)["ndcg_at_10"]
    record_property("ndcg_at_10", (float(found), float(expected)))
    print(f"{name}: ours {found:.6f}, theirs {expected:.6f}")
    assert 0.5 < expected < 0.95
    assert abs(found - expected) <= 1e-4


@pytest.mark.slow
def test_similarity_scores(data, ours, original, tmp_path, record_property):
    path = data / "sts" / "stsb-en-dev.tsv.gz"
    rows = table(path)
    first, second = (encoded(original, [clean(row[side]) for row in rows]) for side in ("sentence1", "sentence2"))
    gold = [float(row["score"]) for row in rows]
    expected = float(stats.spearmanr(np.sum(first * second, -1), gold).statistic)
    found = scored(ours, tmp_path, "sts", path)["cosine_spearman"]
    record_property("cosine_spearman", (float(found), float(expected)))
    print(f"stsb: ours {found:.6f}, theirs {expected:.6f}")
    assert 0.8 < expected < 0.95
    assert abs(found - expected) <= 1e-4
