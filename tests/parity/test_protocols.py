"""Tasks of every type scored by mteb and by us on the same embeddings: every score that both give is the same to 1e-6."""

import functools
import hashlib
import json
import random

import numpy as np
import pytest
from parity_foreign import embed

from embed.evaluation import runner, suites
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.views import View
from embed.inference import model as inference
from embed.inference import search
from embed.text import clean, template
from embed.vectors import truncate_numpy

mteb = pytest.importorskip("mteb")
from mteb._evaluators import retrieval_metrics  # noqa: E402
from mteb.similarity_functions import cos_sim, pairwise_cos_sim  # noqa: E402
from parity_tasks import (  # noqa: E402
    clustering_rows,
    labelled,
    like,
    make_instruction_reranking,
    make_retrieval,
    pair_rows,
    sentence,
    several_labels,
    sts_rows,
    their_task,
    write_jsonl,
    write_qrels,
    write_tsv,
)

# mteb and scikit-learn warn of unfinished fits, unseen labels and features of mteb itself that go away.
pytestmark = pytest.mark.filterwarnings("ignore")
TOLERANCE = 1e-6
DIM = 32

CUTS = (1, 3, 5, 10, 20, 100, 1000)
RANKED = {f"{measure}_at_{k}" for measure in ("ndcg", "map", "recall", "precision", "mrr") for k in CUTS}
DISTANCES = ("cosine", "manhattan", "euclidean")
NAMES = {
    "retrieval": RANKED,
    "reranking": RANKED,
    "instruction_reranking": {"p-MRR", *RANKED},
    "sts": {f"{d}_{c}" for d in DISTANCES for c in ("spearman", "pearson")},
    "summarization": {"cosine_spearman", "cosine_pearson"},
    "pair_classification": {
        f"{d}_{m}" for d in (*DISTANCES, "dot", "max") for m in ("accuracy", "f1", "precision", "recall", "ap")
    },
    "bitext": {"f1", "precision", "recall", "accuracy"},
    "classification": {"accuracy", *(f"{m}{w}" for m in ("f1", "precision", "recall") for w in ("", "_weighted"))},
    "multilabel_classification": {"accuracy", "f1", "lrap", "hamming"},
    "clustering": {"v_measure", "v_measure_std", "ami", "ami_std"},
}


@pytest.fixture(autouse=True)
def not_rounded(monkeypatch):
    """mteb rounds scores of rankings to five digits, which would hide what is asked here: it is made to keep them all."""
    kept = lambda value, digits=None: round(value) if digits is None else value  # noqa: E731
    monkeypatch.setattr(retrieval_metrics, "round", kept, raising=False)


class Lookup:
    """The vectors of cleaned texts, at the first `dim` numbers: an encoder of mteb's protocol, and with `ours` one of ours.

    `vector` gives a text's float32 vector. Both sides are given it as it is; the cut is made for mteb here, for us by `View`.
    """

    similarity = staticmethod(cos_sim)
    similarity_pairwise = staticmethod(pairwise_cos_sim)

    def __init__(self, vector, dim: int):
        self.vector, self.dim = vector, dim

    @property
    def mteb_model_meta(self):
        return mteb.models.ModelMeta.create_empty(overwrites={"name": "local/lookup", "revision": str(self.dim)})

    def _of(self, texts) -> np.ndarray:
        return np.array([self.vector(clean(text)) for text in texts], np.float32)

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **options):
        return truncate_numpy(self._of([text for batch in inputs for text in batch["text"]]), self.dim)

    def ours(self, items, *, prompt, progress=None):
        return self._of(joined([item.text for item in items], [item.title or "" for item in items]))


def joined(texts, titles) -> list[str]:
    """Returns documents as mteb hands them to a model: title and text as one text."""
    return [f"{title} {text}" for title, text in zip(titles or [""] * len(texts), texts, strict=True)]


def score_both(path, vector, dim):
    """Returns {task: (type, our scores, mteb's scores)} of a suite's file."""
    suite, lookup = suites.read_suite(path), Lookup(vector, dim)
    ours = runner.run(suite, Embeddings(lookup.ours, template), [View(dim)], search.top_k).scores
    found = {}
    for entry in json.loads(path.read_text(encoding="utf-8"))["tasks"]:
        result = mteb.evaluate(
            lookup,
            [their_task(entry, path.parent)],
            cache=None,
            overwrite_strategy="always",
            co2_tracker=False,
            show_progress_bar=False,
        )
        (theirs,) = result.task_results[0].scores["test"]
        found[entry["name"]] = entry["type"], ours[entry["name"]][str(dim)], theirs
    return found


def differences(kind, ours, theirs) -> dict[str, float]:
    """Returns how far the two sides are apart in every score; each of ours must be one of mteb's, and a number."""
    assert set(ours) >= NAMES[kind]
    assert set(ours) <= set(theirs)
    assert all(np.isfinite(value) for value in ours.values())
    return {name: abs(value - theirs[name]) for name, value in ours.items()}


@pytest.fixture
def compared(tmp_path, record_property):
    """compared(type, path, **fields of the suite's entry) scores the files at `path` and returns our scores."""

    def compare(kind, path, **fields):
        entry = {"name": "generated", "type": kind, "path": path, **fields}
        (tmp_path / "suite.json").write_text(json.dumps({"tasks": [entry]}))
        ((_, ours, theirs),) = score_both(tmp_path / "suite.json", hashed, DIM).values()
        found = differences(kind, ours, theirs)
        record_property("largest_difference", float(max(found.values())))
        print(f"{kind}: largest difference {max(found.values()):.1e}, {len(found)} scores")
        apart = {name: (ours[name], theirs[name]) for name, value in found.items() if not value <= TOLERANCE}
        assert not apart
        return ours

    return compare


@functools.cache
def noise(text: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(DIM)


def hashed(text: str) -> np.ndarray:
    """Returns a unit vector by the hash of the text, nearer to that of a text which shares words with it."""
    x = noise(f"text: {text}") + sum(noise(word) for word in text.split())
    return (x / np.linalg.norm(x)).astype(np.float32)


VARIANTS = {"texts": {}, "titles": {"titles": True}, "untidy texts": {"untidy": True}, "few": {"documents": 60}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_retrieval_scores_are_those_of_mteb(variant, tmp_path, compared):
    make_retrieval(tmp_path / "data", **VARIANTS[variant])
    assert 0.1 < compared("retrieval", "data")["ndcg_at_10"] < 0.9


@pytest.mark.parametrize(
    "rules",
    [
        {"skip_first_result": True},
        {"ignore_identical_ids": True},
        {"skip_first_result": True, "ignore_identical_ids": True},
        {"k_values": [1, 2, 3, 5, 10, 20, 50, 100, 1000]},
    ],
    ids=" ".join,
)
def test_rules_of_a_suite_count_as_in_mteb(rules, tmp_path, compared):
    make_retrieval(tmp_path / "data")  # some documents have ids of queries
    assert 0.1 < compared("retrieval", "data", **rules)["ndcg_at_10"] < 0.9


def test_documents_of_one_text_are_ordered_as_in_mteb(tmp_path, compared):
    draw = random.Random(2)
    texts = [sentence(draw) for _ in range(30)]
    corpus = [{"id": f"n{i}", "text": texts[i % 30]} for i in range(120)]
    queries = [{"id": f"q{i}", "text": like(draw, text)} for i, text in enumerate(texts)]
    qrels = {f"q{i}": {f"n{i + 30 * draw.randrange(4)}": 1} for i in range(30)}
    write_jsonl(tmp_path / "data" / "queries.jsonl", queries)
    write_jsonl(tmp_path / "data" / "corpus.jsonl", corpus)
    write_qrels(tmp_path / "data" / "qrels.tsv", qrels)
    assert 0.1 < compared("retrieval", "data")["mrr_at_10"] < 0.9


def test_queries_with_irrelevant_documents_alone_count_as_in_mteb(tmp_path, compared):
    # mteb leaves out queries that have no judgement at all; these have some, and score zero.
    make_retrieval(tmp_path / "data", documents=60)
    rows = (tmp_path / "data" / "qrels.tsv").read_text().splitlines()
    rows = [f"{row[:-1]}0" if row.startswith(("n1\t", "n2\t", "n3\t")) else row for row in rows]
    (tmp_path / "data" / "qrels.tsv").write_text("\n".join(rows) + "\n")
    compared("retrieval", "data")


def test_reranking_scores_are_those_of_mteb(tmp_path, compared):
    draw = random.Random(3)
    rows = []
    for i in range(50):
        query = sentence(draw)
        positives = [like(draw, query, 3) for _ in range(1 + i % 3)]
        rows.append(
            {"query": query, "positives": positives, "negatives": [like(draw, query, 1 + k % 2) for k in range(9)]}
        )
    write_jsonl(tmp_path / "data.jsonl", rows)
    assert 0.1 < compared("reranking", "data.jsonl")["map_at_1000"] < 0.9


def test_sts_scores_are_those_of_mteb(tmp_path, compared):
    write_tsv(tmp_path / "data.tsv", ("sentence1", "sentence2", "score"), sts_rows(random.Random(4)))
    assert 0.1 < compared("sts", "data.tsv")["cosine_spearman"] < 0.95


def test_sts_with_pairs_of_one_sentence_is_scored_as_by_mteb(tmp_path, compared):
    # They are at distance zero and cosine one, all tied: rounding must not put them in an order.
    draw = random.Random(4)
    same = [(text, text, draw.choice((4, 4.5, 5))) for text in (sentence(draw) for _ in range(40))]
    write_tsv(tmp_path / "data.tsv", ("sentence1", "sentence2", "score"), sts_rows(draw) + same)
    compared("sts", "data.tsv")


def test_summarization_scores_are_those_of_mteb(tmp_path, compared):
    draw = random.Random(5)
    rows = []
    for i in range(30):
        text = sentence(draw)
        kept = [k % 6 for k in range(5 + i % 4)]
        machine = [like(draw, text, k) for k in kept]
        row = {"text": text, "human_summaries": [like(draw, text, 5) for _ in range(2 + i % 3)]}
        rows.append({**row, "machine_summaries": machine, "relevance": [draw.randint(0, 3) + k / 3 for k in kept]})
    # Texts that both leave out: grades that are all equal, summaries that are, and a single summary.
    rows[3]["relevance"] = [2.0] * len(rows[3]["relevance"])
    rows[4]["machine_summaries"] = rows[4]["machine_summaries"][:1] * len(rows[4]["relevance"])
    rows[5] |= {"machine_summaries": rows[5]["machine_summaries"][:1], "relevance": [1.0]}
    write_jsonl(tmp_path / "data.jsonl", rows)
    assert 0.1 < compared("summarization", "data.jsonl")["cosine_spearman"] < 0.95


def test_pair_classification_scores_are_those_of_mteb(tmp_path, compared):
    write_tsv(tmp_path / "data.tsv", ("sentence1", "sentence2", "label"), pair_rows(random.Random(6)))
    assert 0.1 < compared("pair_classification", "data.tsv")["max_ap"] < 0.95


def test_pair_classification_with_pairs_of_one_sentence_is_scored_as_by_mteb(tmp_path, compared):
    # Their dot products are one up to rounding, so it takes mteb's own way to compute them to get its order.
    draw = random.Random(6)
    same = [(text, text, draw.choice((0, 1, 1))) for text in (sentence(draw) for _ in range(40))]
    write_tsv(tmp_path / "data.tsv", ("sentence1", "sentence2", "label"), pair_rows(draw) + same)
    compared("pair_classification", "data.tsv")


def test_bitext_scores_are_those_of_mteb(tmp_path, compared):
    draw = random.Random(7)
    rows = [(text, like(draw, text, draw.choice((3, 4, 5)))) for text in (sentence(draw) for _ in range(250))]
    write_tsv(tmp_path / "data.tsv", ("src", "tgt"), rows)
    assert 0.1 < compared("bitext", "data.tsv")["f1"] < 0.9


def test_bitext_with_a_sentence_twice_is_scored_as_by_mteb(tmp_path, compared):
    # mteb takes the first of equal translations (from 64 on; of fewer it takes any).
    draw = random.Random(7)
    rows = [(text, like(draw, text, draw.choice((3, 4, 5)))) for text in (sentence(draw) for _ in range(250))]
    rows[:50] = [(source, rows[200 + i][1]) for i, (source, _) in enumerate(rows[:50])]
    write_tsv(tmp_path / "data.tsv", ("src", "tgt"), rows)
    compared("bitext", "data.tsv")


@pytest.mark.parametrize(
    ("labels", "fields"),
    [(5, {}), (2, {}), (4, {"samples_per_label": 16})],
    ids=["five labels", "two labels", "sixteen texts of a label"],
)
def test_classification_scores_are_those_of_mteb(labels, fields, tmp_path, compared):
    draw = random.Random(8)
    test = labelled(draw, 150, labels)
    if labels > 2:
        test += [{"text": sentence(draw), "label": "never learned"} for _ in range(3)]
    write_jsonl(tmp_path / "data" / "train.jsonl", labelled(draw, 200, labels))
    write_jsonl(tmp_path / "data" / "test.jsonl", test)
    found = compared("classification", "data", **fields)
    assert 0.1 < found["accuracy"] < 0.95
    assert ("ap" in found) == (labels == 2)


@pytest.mark.parametrize("fields", [{}, {"samples_per_label": 3}], ids=["eight of a label", "three of a label"])
def test_multilabel_scores_are_those_of_mteb(fields, tmp_path, compared):
    draw = random.Random(9)
    train = several_labels(draw, 200)
    train[0]["label"].append("never asked for")
    write_jsonl(tmp_path / "data" / "train.jsonl", train)
    write_jsonl(tmp_path / "data" / "test.jsonl", several_labels(draw, 150))
    assert 0.05 < compared("multilabel_classification", "data", **fields)["accuracy"] < 0.95


# Numbers as labels, some rows without a fine one: mteb leaves those rows out of the fine level.
LABELS = {
    "one": lambda topic, half: f"label {topic}",
    "two levels": lambda topic, half: [f"label {topic}", f"label {topic}.{half}"],
    "numbers, some without a second level": lambda topic, half: [topic, 2 * topic + half] if topic else [topic],
}


@pytest.mark.parametrize("fields", [{}, {"fraction": 0.5}], ids=["all texts", "half of the texts"])
@pytest.mark.parametrize("labels", LABELS)
def test_clustering_scores_are_those_of_mteb(labels, fields, tmp_path, compared):
    write_jsonl(tmp_path / "data.jsonl", clustering_rows(random.Random(10), LABELS[labels]))
    assert 0.1 < compared("clustering", "data.jsonl", **fields)["v_measure"] < 0.95


def test_clustering_by_words_some_without_a_second_level_is_scored_as_by_mteb(tmp_path, compared):
    # mteb marks a missing level by the number -1. Among words it becomes the word "-1", one more label to be found.
    label = lambda topic, half: [f"label {topic}", f"label {topic}.{half}"] if topic else [f"label {topic}"]  # noqa: E731
    write_jsonl(tmp_path / "data.jsonl", clustering_rows(random.Random(10), label))
    compared("clustering", "data.jsonl")


def test_instruction_reranking_scores_are_those_of_mteb(tmp_path, compared):
    make_instruction_reranking(tmp_path / "data")
    found = compared("instruction_reranking", "data")
    assert 0.01 < abs(found["p-MRR"]) < 0.9
    assert 0.1 < found["ndcg_at_5"] < 0.9


def test_changed_instructions_that_leave_nothing_relevant_count_as_in_mteb(tmp_path, compared):
    make_instruction_reranking(tmp_path / "data", left_over=0)
    compared("instruction_reranking", "data")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_scores_of_a_real_model_are_those_of_mteb(minilm, shared_data, tmp_path, record_property):
    path = shared_data / "suites" / "text-small.json"
    parts = [part for task in suites.read_suite(path).tasks for part in task.parts().values()]
    texts = sorted({clean(text) for part in parts for text in joined(part.items, part.titles)}, key=len)
    assert embed("convert", minilm, tmp_path / "bundle") == 0
    vectors = dict(zip(texts, inference.open_model(tmp_path / "bundle").encode(texts, prompt="none"), strict=True))
    largest, apart = {}, {}
    for dim in (384, 64):
        for name, (kind, ours, theirs) in score_both(path, vectors.__getitem__, dim).items():
            found = differences(kind, ours, theirs)
            largest[kind] = max(largest.get(kind, 0), *found.values())
            print(f"{name} at {dim}: largest difference {max(found.values()):.1e}, {len(found)} scores")
            apart |= {(name, dim, s): (ours[s], theirs[s]) for s, value in found.items() if not value <= TOLERANCE}
    record_property("largest_difference", float(max(largest.values())))
    assert not apart
