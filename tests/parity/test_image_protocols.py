"""Image tasks of every type scored by mteb and by us on the same embeddings: every score that both give is the same to 1e-6."""

import functools
import hashlib
import json

import numpy as np
import pytest
from image_files import write_arrays
from PIL import Image

from embed.evaluation import readers, runner
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.suites import Suite
from embed.evaluation.views import View
from embed.inference import search

mteb = pytest.importorskip("mteb")
from datasets import Dataset, DatasetDict  # noqa: E402
from mteb._evaluators import retrieval_metrics  # noqa: E402
from mteb.abstasks import (  # noqa: E402
    AbsTaskClassification,
    AbsTaskClusteringLegacy,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskZeroShotClassification,
)
from mteb.abstasks.image import image_text_pair_classification  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.similarity_functions import cos_sim, pairwise_cos_sim  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
DIM = 16
PICTURES = np.random.default_rng(0).integers(0, 256, (240, 5, 6, 3)).astype(np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, 240)
NAMES = [f"thing {i % 230}" for i in range(240)]  # some have a name in common


@pytest.fixture(autouse=True)
def not_rounded(monkeypatch):
    """mteb rounds scores of rankings to five digits; it is made to keep them all."""
    kept = lambda value, digits=None: round(value) if digits is None else value  # noqa: E731
    monkeypatch.setattr(retrieval_metrics, "round", kept, raising=False)


def drawn(content: bytes) -> np.ndarray:
    x = np.random.default_rng(int.from_bytes(hashlib.sha256(content).digest()[:8], "big")).standard_normal(DIM)
    return x / np.linalg.norm(x)


@functools.cache
def topics() -> dict[bytes, np.ndarray]:
    """What the vectors of pictures and texts have in common: those of one label, and a picture with its name."""
    shared = {}
    for picture, label, name in zip(PICTURES, LABELS, NAMES):
        shared[picture.tobytes()] = 0.5 * drawn(b"label %d" % label) + 0.6 * drawn(name.encode())
        shared[name.encode()] = 0.6 * drawn(name.encode())
    return shared | {f"label {k}".encode(): 0.5 * drawn(b"label %d" % k) for k in range(4)}


def vector(content: bytes) -> np.ndarray:
    x = topics().get(content, 0.0) + 0.5 * drawn(content + b"own")
    return (x / np.linalg.norm(x)).astype(np.float32)


class Lookup:
    """An encoder of mteb's protocol, and with `ours` one of ours, that knows every item by its content."""

    similarity = staticmethod(cos_sim)
    similarity_pairwise = staticmethod(pairwise_cos_sim)

    @property
    def mteb_model_meta(self):
        meta = {"name": "local/lookup", "revision": "1", "modalities": ["text", "image"]}
        return mteb.models.ModelMeta.create_empty(overwrites=meta)

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **options):
        vectors = []
        for batch in inputs:
            for image in batch.get("image", []):
                vectors.append(vector(np.asarray(image.convert("RGB")).tobytes()))
            if "image" not in batch:
                vectors += [vector(text.encode()) for text in batch["text"]]
        return np.array(vectors)

    def ours(self, items, *, prompt, progress=None):
        return np.array([vector(item.images[0].tobytes() if item.images else item.text.encode()) for item in items])


def metadata(kind: str, main: str, category: str):
    return TaskMetadata(
        name="Local",
        description="local files",
        type=kind,
        category=category,
        main_score=main,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        dataset={"path": "local", "revision": "1"},
        modalities=["image", "text"] if "t" in category else ["image"],
    )


def theirs(base, kind: str, main: str, category: str, dataset, **fields) -> dict:
    """Returns mteb's scores of a task of this base class with `dataset`."""

    def load_data(self, num_proc=None, **options):
        self.dataset, self.data_loaded = dataset, True

    fields = {"metadata": metadata(kind, main, category), "load_data": load_data, **fields}
    task = type("Local", (base,), fields)()
    options = {"cache": None, "overwrite_strategy": "always", "co2_tracker": False, "show_progress_bar": False}
    return mteb.evaluate(Lookup(), [task], **options).task_results[0].scores["test"][0]


def ours(kind: str, path, **entry) -> dict:
    task = readers.read({"name": "t", "type": kind, **entry}, path)
    suite = Suite("s", [task], {"t": kind}, "digest")
    embeddings = Embeddings(Lookup().ours, lambda prompt: prompt)
    return runner.run(suite, embeddings, [View(DIM)], search.top_k).scores["t"][str(DIM)]


def equal(mine: dict, other: dict, names) -> None:
    for name in names:
        assert mine[name] == pytest.approx(other[name], abs=1e-6), name
    assert 0.02 < other["main_score"] < 0.98  # neither by chance nor perfect


def pictures(rows):
    return [Image.fromarray(PICTURES[i]) for i in rows]


RANKED = [f"{m}_at_{k}" for m in ("ndcg", "map", "recall", "mrr") for k in (1, 3, 5, 10, 20, 100)]


@pytest.mark.parametrize("kind", ["image_retrieval", "image_text_retrieval"])
def test_retrieval(kind, tmp_path):
    path = write_arrays(
        tmp_path / "p.npz", [{"id": f"p{i}", "names": {"en": n}} for i, n in enumerate(NAMES)], images=PICTURES
    )
    distinct = list(dict.fromkeys(NAMES))
    images = Dataset.from_dict({"id": [f"p{i}" for i in range(240)], "image": pictures(range(240))})
    texts = Dataset.from_dict({"id": distinct, "text": distinct})
    relevant = {name: {f"p{i}": 1 for i, other in enumerate(NAMES) if other == name} for name in distinct}
    queries, corpus, category = texts, images, "t2i"
    if kind == "image_text_retrieval":
        relevant = {f"p{i}": {name: 1} for i, name in enumerate(NAMES)}
        queries, corpus, category = images, texts, "i2t"
    data = {"queries": queries, "corpus": corpus, "relevant_docs": relevant, "top_ranked": None}
    scores = theirs(AbsTaskRetrieval, "Any2AnyRetrieval", "ndcg_at_10", category, {"default": {"test": data}})
    equal(ours(kind, path), scores, RANKED)


@pytest.mark.parametrize("rule", ["skip_first_result", "ignore_identical_ids"])
def test_retrieval_with_the_query_in_the_index(rule, tmp_path):
    rows, folder = range(120), tmp_path
    for i in rows:
        Image.fromarray(PICTURES[i]).save(folder / f"{i}.png")
    listed = "".join(json.dumps({"id": f"p{i}", "image": f"{i}.png"}) + "\n" for i in rows)
    for name in ("queries", "corpus"):
        (folder / f"{name}.jsonl").write_text(listed)
    qrels = {f"p{i}": {f"p{j}": 1 for j in rows if LABELS[j] == LABELS[i] and j != i} for i in rows}
    lines = [f"{q}\t{d}\t1\n" for q, judged in qrels.items() for d in judged]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    images = Dataset.from_dict({"id": [f"p{i}" for i in rows], "image": pictures(rows)})
    data = {"queries": images, "corpus": images, "relevant_docs": qrels, "top_ranked": None}
    fields = {rule: True}
    scores = theirs(AbsTaskRetrieval, "Any2AnyRetrieval", "ndcg_at_10", "i2i", {"default": {"test": data}}, **fields)

    class Opened(Lookup):
        def ours(self, items, *, prompt, progress=None):
            return np.array([vector(np.asarray(Image.open(item.images[0])).tobytes()) for item in items])

    task = readers.read({"name": "t", "type": "image_retrieval", rule: True}, folder)
    embeddings = Embeddings(Opened().ours, lambda prompt: prompt)
    mine = runner.run(Suite("s", [task], {"t": "i"}, "digest"), embeddings, [View(DIM)], search.top_k).scores["t"][
        str(DIM)
    ]
    equal(mine, scores, RANKED)


def opened_by_content(items, *, prompt, progress=None):
    """Returns the vectors of items as `Lookup` gives them; a text decides where there is one."""
    images = [None if item.text is not None else np.asarray(Image.open(item.images[0])).tobytes() for item in items]
    return np.array([vector(item.text.encode() if image is None else image) for item, image in zip(items, images)])


def scored(kind: str, folder) -> dict:
    task = readers.read({"name": "t", "type": kind}, folder)
    embeddings = Embeddings(opened_by_content, lambda prompt: prompt)
    return runner.run(Suite("s", [task], {"t": kind}, "digest"), embeddings, [View(DIM)], search.top_k).scores["t"][
        str(DIM)
    ]


def test_universal_retrieval(tmp_path):
    """Every domain's queries in the merged index, a query left out of it."""
    domains = {"one": range(70), "two": range(70, 180)}
    for name, rows in domains.items():
        (tmp_path / name).mkdir()
        for i in rows:
            Image.fromarray(PICTURES[i]).save(tmp_path / name / f"{i}.png")
        lines = [json.dumps({"image": f"{i}.png", "label": str(LABELS[i])}) + "\n" for i in rows]
        (tmp_path / name / "index.jsonl").write_text("".join(lines))
    mine, means = scored("universal_retrieval", tmp_path), []
    for name, rows in domains.items():
        for suffix, found in (("", range(180)), ("_separate", rows)):
            relevant = {f"p{i}": {f"p{j}": 1 for j in rows if LABELS[j] == LABELS[i] and j != i} for i in rows}
            of = lambda chosen: Dataset.from_dict({"id": [f"p{i}" for i in chosen], "image": pictures(chosen)})  # noqa: E731
            data = {"queries": of(rows), "corpus": of(found), "relevant_docs": relevant, "top_ranked": None}
            kind = ("Any2AnyRetrieval", "map_at_1000", "i2i", {"default": {"test": data}})
            scores = theirs(AbsTaskRetrieval, *kind, ignore_identical_ids=True)
            assert mine[f"map_at_1000{suffix}/{name}"] == pytest.approx(scores["map_at_1000"], abs=1e-6)
            assert mine[f"r1{suffix}/{name}"] == pytest.approx(scores["precision_at_1"], abs=1e-6)
            # All labels have more than five images, so that the share of hits among the first five is counted alike.
            assert mine[f"mmp_at_5{suffix}/{name}"] == pytest.approx(scores["precision_at_5"], abs=1e-6)
            assert 0.1 < scores["map_at_1000"] < 0.98
            means += [scores["map_at_1000"]] if not suffix else []
    assert mine["map_at_1000"] == pytest.approx(np.mean(means), abs=1e-6)


def test_mixed_retrieval(tmp_path):
    rows = range(120)
    for i in rows:
        Image.fromarray(PICTURES[i]).save(tmp_path / f"{i}.png")
    texts = [f"[MASK_0] {NAMES[i]}" for i in rows]
    queries = [{"_id": f"q{i}", "text": texts[i], "images": [f"{119 - i}.png"], "excluded": []} for i in rows]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    corpus = [{"_id": f"p{i}", "image": f"{i}.png"} for i in rows]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\tp{i}\t1\n" for i in rows))
    data = {
        "queries": Dataset.from_dict({"id": [f"q{i}" for i in rows], "text": texts}),
        "corpus": Dataset.from_dict({"id": [f"p{i}" for i in rows], "image": pictures(rows)}),
        "relevant_docs": {f"q{i}": {f"p{i}": 1} for i in rows},
        "top_ranked": None,
    }
    kind = ("Any2AnyRetrieval", "ndcg_at_10", "t2i", {"default": {"test": data}})
    scores, mine = theirs(AbsTaskRetrieval, *kind), scored("mixed_retrieval", tmp_path)
    for k in (1, 5, 10):
        assert mine[f"unfiltered/r{k}"] == pytest.approx(scores[f"recall_at_{k}"], abs=1e-6)
    assert mine["unfiltered/mrr"] == pytest.approx(scores["mrr_at_100"], abs=1e-6)
    assert mine["unfiltered/r10"] > mine["unfiltered/r1"]


def test_classification(tmp_path):
    path = write_arrays(tmp_path / "p.npz", images=PICTURES, labels=LABELS)
    splits = {"train": range(0, 240, 2), "test": range(1, 240, 2)}
    dataset = DatasetDict(
        {s: Dataset.from_dict({"image": pictures(r), "label": [int(LABELS[i]) for i in r]}) for s, r in splits.items()}
    )
    fields = {"input_column_name": "image", "samples_per_label": 16, "n_experiments": 5}
    scores = theirs(AbsTaskClassification, "ImageClassification", "accuracy", "i2c", dataset, **fields)
    names = ["accuracy", *(f"{m}{w}" for m in ("f1", "precision", "recall") for w in ("", "_weighted"))]
    equal(ours("image_classification", path), scores, names)


def test_zero_shot_classification(tmp_path):
    path = write_arrays(tmp_path / "p.npz", images=PICTURES, labels=np.array([f"label {k}" for k in LABELS]))
    dataset = DatasetDict(test=Dataset.from_dict({"image": pictures(range(240)), "label": [int(k) for k in LABELS]}))
    fields = {"get_candidate_labels": lambda self: [f"label {k}" for k in range(4)]}
    scores = theirs(AbsTaskZeroShotClassification, "ZeroShotClassification", "accuracy", "i2t", dataset, **fields)
    names = ["accuracy", *(f"{m}{w}" for m in ("f1", "precision", "recall") for w in ("", "_weighted"))]
    equal(ours("zero_shot_classification", path), scores, names)


def test_clustering(tmp_path):
    path = write_arrays(tmp_path / "p.npz", images=PICTURES, labels=LABELS)
    dataset = DatasetDict(test=Dataset.from_dict({"image": pictures(range(240)), "label": [int(k) for k in LABELS]}))
    fields = {"input_column_name": "image", "label_column_name": "label"}
    scores = theirs(AbsTaskClusteringLegacy, "ImageClustering", "nmi", "i2c", dataset, **fields)
    equal(ours("image_clustering", path), scores, ["nmi", "v_measure", "ari", "cluster_accuracy"])


def test_visual_sts(tmp_path):
    rows, gold = [], []
    for i in range(0, 238, 2):
        j = i + 1 + i % 3 % 2
        rows.append((i, j))
        gold.append(float(LABELS[i] == LABELS[j]) + i % 5 / 5)
    folder = tmp_path
    lines = [json.dumps({"image1": f"{i}.png", "image2": f"{j}.png", "score": g}) for (i, j), g in zip(rows, gold)]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")
    for i in range(240):
        Image.fromarray(PICTURES[i]).save(folder / f"{i}.png")
    columns = {"image1": pictures(i for i, _ in rows), "image2": pictures(j for _, j in rows), "score": gold}
    fields = {"column_names": ("image1", "image2"), "min_score": 0, "max_score": 2}
    dataset = DatasetDict(test=Dataset.from_dict(columns))
    scores = theirs(AbsTaskSTS, "VisualSTS(eng)", "cosine_spearman", "i2i", dataset, **fields)
    task = readers.read({"name": "t", "type": "visual_sts"}, folder)
    encode = lambda items, **_: np.array(  # noqa: E731
        [vector(np.asarray(Image.open(item.images[0])).tobytes()) for item in items]
    )
    embeddings = Embeddings(encode, lambda prompt: prompt)
    mine = runner.run(Suite("s", [task], {"t": "i"}, "digest"), embeddings, [View(DIM)], search.top_k).scores["t"][
        str(DIM)
    ]
    names = [f"{d}_{c}" for d in ("cosine", "manhattan", "euclidean") for c in ("spearman", "pearson")]
    equal(mine, scores, names)


def test_compositionality(tmp_path):
    rows = [(i, i + 1) for i in range(0, 240, 2)]
    folder = tmp_path
    lines = [json.dumps({"images": [f"{i}.png" for i in row], "texts": [NAMES[i] for i in row]}) for row in rows]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")
    for i in range(240):
        Image.fromarray(PICTURES[i]).save(folder / f"{i}.png")
    columns = {f"image_{k}": pictures(row[k] for row in rows) for k in range(2)}
    columns |= {f"text_{k}": [NAMES[row[k]] for row in rows] for k in range(2)}
    fields = {"images_column_names": ["image_0", "image_1"], "texts_column_names": ["text_0", "text_1"]}
    base = image_text_pair_classification.AbsTaskImageTextPairClassification
    scores = theirs(base, "Compositionality", "accuracy", "i2t", DatasetDict(test=Dataset.from_dict(columns)), **fields)
    task = readers.read({"name": "t", "type": "compositionality"}, folder)

    def encode(items, **_):
        content = [np.asarray(Image.open(i.images[0])).tobytes() if i.images else i.text.encode() for i in items]
        return np.array([vector(c) for c in content])

    embeddings = Embeddings(encode, lambda prompt: prompt)
    mine = runner.run(Suite("s", [task], {"t": "i"}, "digest"), embeddings, [View(DIM)], search.top_k).scores["t"][
        str(DIM)
    ]
    equal(mine, scores, ["accuracy", "text_acc", "image_acc"])
