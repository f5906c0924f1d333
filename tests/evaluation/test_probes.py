"""Classification, several labels a text and clustering: MTEB's draws by literal loops, known predictions by hand."""

import random

import numpy as np
import pytest
from sklearn import metrics
from sklearn.cluster import MiniBatchKMeans

from embed.evaluation import probes


def corners(names, of: str = "abcdef") -> np.ndarray:
    """Returns a corner of the cube for each name, far from all others."""
    return np.eye(len(of), dtype=np.float32)[[of.index(n) for n in names]]


def classified(*given) -> tuple[dict[str, float], np.ndarray]:
    """Returns the scores, and the share of the experiments that get each test row right."""
    predicted, gold = probes.classification_experiments(*given)
    return probes.classification_scores(predicted, gold), (predicted == gold[:, None]).mean(1)


def voted(*given) -> tuple[dict[str, float], np.ndarray]:
    """Returns the scores, and the share of the experiments that get all labels of each test row right."""
    predicted, gold = probes.multilabel_experiments(*given)
    return probes.multilabel_scores(predicted, gold), (predicted == gold[:, None]).all(2).mean(1)


# draws


def literal_draws(labels, per_label: int, experiments: int) -> list[list[int]]:
    """MTEB: the same seed shuffles the list that the experiment before left behind; then the first of each label."""
    order = list(range(len(labels)))
    draws = []
    for _ in range(experiments):
        np.random.RandomState(42).shuffle(order)
        taken = []
        for i in order:
            if sum(1 for j in taken if labels[j] == labels[i]) < per_label:
                taken.append(i)
        draws.append(taken)
    return draws


@pytest.mark.parametrize("per_label", [1, 3, 8, 100])
@pytest.mark.parametrize("seed", range(3))
def test_classification_draws_follow_mteb(seed, per_label):
    labels = random.Random(seed).choices("abc" if seed else "a", weights=None, k=60) + ["rare"]
    found = probes.classification_draws(labels, per_label)
    assert found == literal_draws(labels, per_label, 10)
    for rows in found:
        assert len(set(rows)) == len(rows)
        for label in set(labels):
            assert sum(labels[i] == label for i in rows) == min(per_label, labels.count(label))


def test_the_order_is_shuffled_on_so_the_experiments_differ():
    found = probes.classification_draws(list("abc" * 20), 8)
    assert len({tuple(sorted(rows)) for rows in found}) == 10


def test_few_of_each_label_shuffles_the_order_it_is_given():
    order = list(range(20))
    wanted = list(range(20))
    np.random.RandomState(42).shuffle(wanted)
    assert probes.few_of_each_label(["x"] * 20, 3, order) == wanted[:3]
    assert order == wanted


def literal_multilabel_draws(labels, per_label: int, experiments: int) -> list[list[int]]:
    """MTEB: a fresh list each time, shuffled by one generator; a row is taken when any of its labels lacks examples."""
    generator = np.random.default_rng(42)
    draws = []
    for _ in range(experiments):
        order = list(np.arange(len(labels)))
        generator.shuffle(order)
        taken = []
        for i in order:
            if any(sum(1 for j in taken if x in labels[j]) < per_label for x in labels[i]):
                taken.append(int(i))
        draws.append(taken)
    return draws


@pytest.mark.parametrize("per_label", [1, 2, 8])
@pytest.mark.parametrize("seed", range(3))
def test_multilabel_draws_follow_mteb(seed, per_label):
    draw = random.Random(seed)
    labels = [draw.sample("abcde", draw.randint(0, 3)) for _ in range(70)]
    found = probes.multilabel_draws(labels, per_label)
    assert found == literal_multilabel_draws(labels, per_label, 10)
    assert found[0] != found[1] and all(labels[i] for rows in found for i in rows)


# classification


def test_separable_vectors_are_all_right():
    labels = list("aabbcc") * 3
    draws = probes.classification_draws(labels, 2)
    found, right = classified(corners(labels), labels, corners("abcabc"), list("abcabc"), draws)
    assert set(found) == {
        "accuracy", "f1", "f1_weighted", "precision", "precision_weighted", "recall", "recall_weighted"
    }  # fmt: skip
    assert all(v == 1.0 for v in found.values()) and list(right) == [1.0] * 6


def test_constant_vectors_are_at_chance():
    labels = list("abcd") * 10
    same = np.tile(corners("a"), (40, 1))
    draws = probes.classification_draws(labels, 8)
    found, right = classified(same, labels, same, labels, draws)
    assert found["accuracy"] == pytest.approx(0.25) and found["f1"] == pytest.approx(0.1)
    assert right.mean() == pytest.approx(0.25)


def test_scores_of_known_predictions():
    train = list("aaabbbccc")
    draws = probes.classification_draws(train, 3)
    # The vectors say a a b c b; a counts 1 of 2 right, b 1 of 2, c 1 of 1.
    found, right = classified(corners(train), train, corners("aabcb"), list("abbca"), draws)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["precision"] == found["recall"] == found["f1"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert found["f1_weighted"] == pytest.approx((2 * 1 / 2 + 2 * 1 / 2 + 1) / 5)
    assert list(right) == [1, 0, 1, 1, 0]


def test_a_label_that_only_occurs_in_the_test_counts_as_missed():
    train = list("aabb")
    draws = probes.classification_draws(train, 2)
    found, right = classified(corners(train), train, corners("aabba"), list("aabbz"), draws)
    assert found["accuracy"] == pytest.approx(4 / 5) and list(right) == [1, 1, 1, 1, 0]
    # a: precision 2/3, recall 1; b: 1 and 1; z: 0 and 0.
    assert found["f1"] == pytest.approx((0.8 + 1 + 0) / 3)
    assert found["recall"] == pytest.approx(2 / 3) and found["precision"] == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_a_label_that_only_occurs_in_the_training_is_a_wrong_answer():
    train = list("aabbcc")
    draws = probes.classification_draws(train, 2)
    found, _ = classified(corners(train), train, corners("aac"), list("aab"), draws)
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_average_precision_is_given_for_two_labels_only():
    train = list("nnnppp")
    draws = probes.classification_draws(train, 3)
    vectors = corners("nnnppp", "np")
    found, _ = classified(vectors, train, corners("pnpn", "np"), list("ppnn"), draws)
    assert found["ap"] == pytest.approx(metrics.average_precision_score([1, 1, 0, 0], [1, 0, 1, 0]))
    assert found["accuracy"] == 0.5


def test_a_draw_with_one_label_predicts_it():
    vectors = corners("ab")
    found, right = classified(vectors, list("ab"), corners("aab"), list("aab"), [[0], [0, 1]])
    assert list(right) == [1, 1, 0.5]
    assert found["accuracy"] == pytest.approx((2 / 3 + 1) / 2)


# several labels


def test_neighbours_vote_on_every_label():
    train_labels = [["a"]] * 6 + [["a", "b"]] * 6 + [["c"]] * 6
    train = corners(["a"] * 6 + ["b"] * 6 + ["c"] * 6)
    draws = probes.multilabel_draws(train_labels, 6)
    assert all(len(rows) >= 12 for rows in draws)
    draws = [list(range(18))] * 2  # all of them, so that each corner has its five neighbours
    gold = [["a"], ["b", "a"], ["c"], ["a", "c"], []]
    found, right = voted(train, train_labels, corners("abcaa"), gold, draws)
    # Said: a, ab, c, a, a.
    assert list(right) == [1, 1, 1, 0, 0] and found["accuracy"] == pytest.approx(3 / 5)
    assert found["hamming"] == pytest.approx((1 + 1 + 1 + 1 / 2 + 0) / 5)
    # a: 3 right, 1 too many; b: 1 right; c: 1 right, 1 missed.
    assert found["f1"] == pytest.approx((2 * 3 / (4 + 3) + 1 + 2 * 1 / (1 + 2)) / 3)
    said = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]])
    wanted = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]])
    assert found["lrap"] == pytest.approx(metrics.label_ranking_average_precision_score(wanted, said))


def test_texts_without_labels_that_get_none_are_right():
    train_labels = [["a"]] * 5 + [["b"]] * 5 + [["z"]] * 5  # z does not occur in the test
    train = corners("aaaaabbbbbccccc")
    found, right = voted(train, train_labels, corners("abc"), [["a"], ["b"], []], [list(range(15))])
    assert list(right) == [1, 1, 1] and found["hamming"] == 1.0


def test_fewer_rows_than_neighbours_all_vote():
    found, _ = voted(corners("aaa"), [["a"], ["a"], ["b"]], corners("aa"), [["a"], ["b"]], [[0, 1, 2]])
    assert found["accuracy"] == 0.5  # a by two of three votes


def test_constant_vectors_say_the_same_of_every_text():
    draw = random.Random(0)
    labels = [[x] for x in draw.choices("abcd", k=80)]
    same = np.tile(corners("a"), (80, 1))
    found, _ = voted(same, labels, same, labels, probes.multilabel_draws(labels, 8))
    assert found["accuracy"] < 0.4 and found["f1"] < 0.2


# clustering


def blobs(labels, spread: float = 0.01) -> np.ndarray:
    names = sorted(set(labels))
    noise = np.random.default_rng(0).standard_normal((len(labels), len(names))) * spread
    return (np.eye(len(names))[[names.index(x) for x in labels]] + noise).astype(np.float32)


def test_separated_groups_are_found():
    labels = list("ab") * 30 + list("c") * 30
    found, drawn = probes.clustering_scores(blobs(labels), [[x] for x in labels], size=300)
    values = drawn["v_measure"]
    # k-means++ may put two centres into one group, but not often.
    assert found["v_measure"] > 0.9 and found["ami"] > 0.9
    assert len(values) == 10 and found["v_measure"] == pytest.approx(np.mean(values))
    assert found["v_measure_std"] == pytest.approx(np.std(values))


def test_constant_vectors_have_no_groups():
    labels = [[x] for x in "abc" * 20]
    found, drawn = probes.clustering_scores(np.ones((60, 4), np.float32) / 2, labels, size=200)
    values = drawn["v_measure"]
    assert found["v_measure"] == pytest.approx(0, abs=1e-9) and found["ami"] == pytest.approx(0, abs=1e-9)
    assert values == pytest.approx(np.zeros(10), abs=1e-9)


def test_vectors_that_have_nothing_to_do_with_the_labels_score_about_nothing():
    labels = [[x] for x in "ab" * 100]
    vectors = np.random.default_rng(1).standard_normal((200, 8)).astype(np.float32)
    assert probes.clustering_scores(vectors, labels, size=2000)[0]["v_measure"] < 0.1


def test_hierarchical_labels_are_scored_level_by_level():
    fine = list("abcd") * 20
    labels = [["left" if x in "ab" else "right", x] for x in fine]
    # The vectors know the coarse label alone.
    vectors = blobs([own[0] for own in labels])
    found, drawn = probes.clustering_scores(vectors, labels, size=400)
    values = drawn["v_measure"]
    assert len(values) == 20
    assert values[:10].min() > 0.99 and values[10:].max() < 0.9
    assert found["v_measure"] == pytest.approx(values.mean())


def test_clustering_follows_mteb_draw_by_draw():
    draw = np.random.default_rng(2)
    vectors = draw.standard_normal((90, 6)).astype(np.float32)
    labels = [[str(i % 3), f"{i % 3}-{i % 7}"][: 1 + (i % 5 > 0)] for i in range(90)]  # some have no finer label
    generator, wanted, mutual = random.Random(42), [], []
    for level in (0, 1):
        rows = np.array([i for i in range(90) if len(labels[i]) > level])
        gold = np.array([labels[i][level] for i in rows])
        means = MiniBatchKMeans(len(set(gold)), batch_size=512, init="k-means++", n_init=1, random_state=42)
        for _ in range(10):
            taken = generator.choices(range(len(rows)), k=600)
            clusters = means.fit_predict(vectors[rows][taken])
            wanted.append(metrics.v_measure_score(gold[taken], clusters))
            mutual.append(metrics.adjusted_mutual_info_score(gold[taken], clusters))
    found, drawn = probes.clustering_scores(vectors, labels, size=600)
    values = drawn["v_measure"]
    assert list(values) == pytest.approx(wanted)
    assert found["ami"] == pytest.approx(np.mean(mutual)) and found["ami_std"] == pytest.approx(np.std(mutual))


def test_a_generator_that_has_drawn_before_goes_on():
    labels = [[x] for x in "abc" * 20]
    vectors = np.random.default_rng(3).standard_normal((60, 4)).astype(np.float32)
    generator = random.Random(42)
    fresh = probes.clustering_scores(vectors, labels, size=100, generator=generator)[1]["v_measure"]
    again = probes.clustering_scores(vectors, labels, size=100)[1]["v_measure"]
    further = probes.clustering_scores(vectors, labels, size=100, generator=generator)[1]["v_measure"]
    assert list(fresh) == list(again) and list(further) != list(again)
