"""UDON's loss against loops in float64, and where its gradients go."""

import jax
import numpy as np
import pytest

from embed.errors import ConfigError
from embed.losses.udon import Udon

LOSS = Udon((3, 2), student_dim=4, teacher_dim=5, scale=7.0, temperature=0.3, relations_weight=5.0)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def given():
    random = np.random.default_rng(0)
    params = {"student": random.normal(size=(5, 4)), "teacher": random.normal(size=(5, 5))}
    student, teacher = unit(random.normal(size=(6, 4))), unit(random.normal(size=(6, 5)))
    return params, student, teacher, np.array([0, 2, 1, 4, 3, 4])


def test_the_value_is_that_of_loops(given):
    params, student, teacher, classes = given
    domain = {0: (0, 1, 2), 1: (3, 4)}
    terms = {"student_classes": [], "teacher_classes": [], "logits": [], "relations": []}
    for i, label in enumerate(classes):
        members = domain[int(label >= 3)]
        cosines = {
            n: np.array([x[i] @ unit(params[n])[c] for c in members])
            for n, x in (("student", student), ("teacher", teacher))
        }
        for name, x in cosines.items():
            shares = np.exp(7.0 * x) / np.exp(7.0 * x).sum()
            terms[f"{name}_classes"].append(-np.log(shares[members.index(label)]))
        p, q = (np.exp(cosines[n] / 0.3) / np.exp(cosines[n] / 0.3).sum() for n in ("teacher", "student"))
        terms["logits"].append(np.sum(p * np.log(p / q)))
        terms["relations"] += [
            5.0 * (student[i] @ student[j] - teacher[i] @ teacher[j]) ** 2 for j in range(6) if j != i
        ]
    with jax.enable_x64(True):
        value, metrics = LOSS(params, student, teacher, classes)
    for name, values in terms.items():
        assert float(metrics[name]) == pytest.approx(np.mean(values), rel=1e-10), name
    assert float(value) == pytest.approx(np.mean([np.mean(values) for values in terms.values()]), rel=1e-10)


def test_distillation_leaves_the_teachers_alone(given):
    params, student, teacher, classes = given

    def distilled(params, teacher, student):
        metrics = LOSS(params, student, teacher, classes)[1]
        return metrics["logits"] + metrics["relations"]

    by_params, by_teacher, by_student = jax.grad(distilled, (0, 1, 2))(params, teacher, student)
    assert not np.any(by_params["teacher"]) and not np.any(by_teacher)
    assert np.any(by_params["student"]) and np.any(by_student)


def test_domains_are_those_of_the_list_of_classes():
    assert LOSS.domain_of(np.arange(5)).tolist() == [0, 0, 0, 1, 1] and LOSS.num_classes == 5
    with pytest.raises(
        ConfigError, match="Udon.classes_per_domain is empty; give the number of classes of each domain"
    ):
        Udon(())
