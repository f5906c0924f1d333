"""Scores of image tasks against loops in numpy, on vectors that a stand-in draws for every image and text."""

import hashlib

import numpy as np
import pytest
from image_files import write, write_arrays
from sklearn import metrics
from task_files import read

from embed.evaluation import image_tasks
from embed.evaluation.embeddings import Items

DIM = 6


class Model:
    """Draws a vector for each item from what it is."""

    dim = DIM

    def vector(self, item) -> np.ndarray:
        digest = hashlib.sha256(f"{item.text}".encode())
        for image in item.images:
            digest.update(image.tobytes() if isinstance(image, np.ndarray) else image.read_bytes())
        x = np.random.default_rng(int.from_bytes(digest.digest()[:8], "big")).standard_normal(DIM)
        return (x / np.linalg.norm(x)).astype(np.float32)

    def __call__(self, items, *, prompt, progress, allow_empty=False):
        progress(len(items))
        return np.array([self.vector(item) for item in items])

    def of(self, part: Items) -> np.ndarray:
        return np.array([self.vector(part.item(row)) for row in range(len(part))])


@pytest.fixture
def model():
    return Model()


NAMES = [{"id": f"p{i}", "names": {"en": f"thing {i % 4}", "de": f"Ding {i}"}} for i in range(6)]


def reciprocal_ranks(queries, corpus, relevant) -> np.ndarray:
    """Returns 1 / the rank of the first relevant document of each query, which are sets of positions."""
    order = np.argsort(-(queries @ corpus.T), axis=1)
    return np.array([1 / (1 + min(list(row).index(d) for d in right)) for row, right in zip(order, relevant)])


@pytest.mark.parametrize("kind", ["image_retrieval", "image_text_retrieval"])
def test_the_score_is_the_mean_of_the_subsets(kind, tmp_path, model, score):
    task = read(kind, write_arrays(tmp_path / "p.npz", NAMES), main="mrr_at_10")
    scores, sample = score(task, model)
    parts, expected = task.parts(), {}
    for language, names in (("de", [f"Ding {i}" for i in range(6)]), ("en", [f"thing {i % 4}" for i in range(6)])):
        distinct = list(dict.fromkeys(names))
        called = [{i for i, n in enumerate(names) if n == name} for name in distinct]
        relevant = called if kind == "image_retrieval" else [{distinct.index(name)} for name in names]
        ranks = reciprocal_ranks(
            model.of(parts[f"queries {language}"]), model.of(parts[f"corpus {language}"]), relevant
        )
        expected[language] = ranks.mean()
        assert scores[f"mrr_at_10/{language}"] == pytest.approx(expected[language], abs=1e-12)
    assert scores["mrr_at_10"] == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    assert sample.of(np.arange(len(sample))) == pytest.approx(scores["mrr_at_10"], abs=1e-12)
    assert task.type == kind


def test_a_query_in_the_index_may_be_left_out(tmp_path, model, score):
    folder = write("image_retrieval", tmp_path / "t")
    (folder / "queries.jsonl").write_text((folder / "corpus.jsonl").read_text())
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"i{i}\ti{i ^ 1}\t1\n" for i in range(6))
    )
    own = score(read("image_retrieval", folder, main="recall_at_1"), model)[0]
    assert own["recall_at_1"] == 0.0  # every image is nearest to itself
    for rule in ("skip_first_result", "ignore_identical_ids"):
        task = read("image_retrieval", folder, main="recall_at_1", **{rule: True})
        vectors = model.of(task.parts()["queries all"])
        cosines = vectors @ vectors.T - 9 * np.eye(6)
        expected = np.mean(cosines.argmax(1) == np.arange(6) ^ 1)
        assert score(task, model)[0]["recall_at_1"] == pytest.approx(expected)


def test_neighbours_vote_among_all_training_images(tmp_path, model, score):
    random = np.random.default_rng(4)
    images, labels = random.integers(0, 256, (90, 4, 4, 3)).astype(np.uint8), random.integers(0, 3, 90)
    path = write_arrays(tmp_path / "p.npz", images=images, labels=labels)
    task = read("image_classification", path, samples_per_label=4, main="knn_accuracy")
    scores, sample = score(task, model)
    train, test = (model.of(part) for part in task.parts().values())
    assert len(train) == 45
    nearest = voted = 0
    for vector, label in zip(test.astype(np.float64), labels[1::2]):
        cosines = train @ vector
        order = np.argsort(-cosines)[:20]
        nearest += labels[0::2][order[0]] == label
        votes = [sum(np.exp(cosines[i] / 0.07) for i in order if labels[0::2][i] == k) for k in range(3)]
        voted += int(np.argmax(votes)) == label
    assert scores["nearest_accuracy"] == pytest.approx(nearest / 45) and scores["knn_accuracy"] == pytest.approx(
        voted / 45
    )
    assert sample.of(np.arange(45)) == pytest.approx(scores["knn_accuracy"])
    linear = read("image_classification", path, samples_per_label=4)
    assert 0 < score(linear, model)[0]["accuracy"] < 1 and score(linear, model)[1].statistic == "mean"


def test_the_nearest_text_is_the_prediction(tmp_path, model, score):
    task = read("zero_shot_classification", write("zero_shot_classification", tmp_path / "t"))
    images, candidates = (model.of(part) for part in task.parts().values())
    predicted = [int(np.argmax([image @ text for text in candidates])) for image in images]
    scores, sample = score(task, model)
    assert scores["accuracy"] == pytest.approx(np.mean(np.array(predicted) == task.gold))
    assert scores["f1"] == pytest.approx(metrics.f1_score(task.gold, predicted, average="macro"))
    assert sample.of(np.arange(6)) == pytest.approx(scores["accuracy"])


@pytest.mark.parametrize("main", ["nmi", "cluster_accuracy"])
def test_clusters_are_found_again(tmp_path, score, main):
    class Separate(Model):
        def vector(self, item):
            base = np.eye(DIM)[int(item.images[0][0, 0, 0]) // 100]
            return (base + 0.05 * super().vector(item)).astype(np.float32)

    images = np.zeros((60, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(60) % 3 * 100
    images[:, 1, 1, 0] = np.arange(60)
    task = read(
        "image_clustering", write_arrays(tmp_path / "p.npz", images=images, labels=np.arange(60) % 3), main=main
    )
    scores, sample = score(task, Separate())
    assert scores == pytest.approx(dict.fromkeys(("nmi", "v_measure", "ari", "cluster_accuracy"), 1.0))
    assert sample.of(np.arange(60)) == pytest.approx(1.0)
    task = read(
        "image_clustering", write_arrays(tmp_path / "p.npz", images=images, labels=np.arange(60) % 2), main=main
    )
    scores, sample = score(task, Model())
    assert 0 <= scores["nmi"] < 0.5 and 0.5 <= scores["cluster_accuracy"] < 1
    assert sample.of(np.arange(60)) == pytest.approx(scores[main])


def test_every_image_and_every_text_finds_its_own(tmp_path, model, score):
    task = read("compositionality", write("compositionality", tmp_path / "t"))
    images, texts = (model.of(part).reshape(3, 2, DIM) for part in task.parts().values())
    by_image = by_text = both = 0
    for row in range(3):
        own = [images[row, i] @ texts[row, i] > images[row, i] @ texts[row, 1 - i] for i in range(2)]
        other = [texts[row, i] @ images[row, i] > texts[row, i] @ images[row, 1 - i] for i in range(2)]
        by_image, by_text, both = by_image + all(own), by_text + all(other), both + (all(own) and all(other))
    scores, _ = score(task, model)
    assert scores == pytest.approx({"text_acc": by_image / 3, "image_acc": by_text / 3, "accuracy": both / 3})


def test_visual_sts_compares_images(tmp_path, model, score):
    task = read("visual_sts", write("visual_sts", tmp_path / "t"))
    assert isinstance(task, image_tasks.VisualSts) and task.gold == [0, 1, 2, 3, 4]
    first, second = (model.of(part) for part in task.parts().values())
    cosines = np.sum(first * second, 1)
    ranks = np.argsort(np.argsort(cosines))
    expected = np.corrcoef(ranks, np.arange(5))[0, 1]
    assert score(task, model)[0]["cosine_spearman"] == pytest.approx(expected, abs=1e-6)
