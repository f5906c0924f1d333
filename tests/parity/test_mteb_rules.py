"""Tasks of the installed mteb by their own rules: the file of rules is what mteb says, and scores by it are mteb's to 1e-6.

For every set of rules that any text task of mteb has, one task of it is given small data with odd cases, and mteb's own
evaluation of that task is compared with ours of the same files, where the suite says no more than `mteb_task`.
"""

import functools
import importlib.util
import json
import math
import pathlib

import numpy as np
import pytest

from embed.evaluation import mteb_rules, runner, suites
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.views import View
from embed.inference import search
from embed.text import clean, template

mteb = pytest.importorskip("mteb")
from mteb._evaluators import retrieval_metrics  # noqa: E402
from mteb.similarity_functions import cos_sim, pairwise_cos_sim  # noqa: E402
from parity_rules import MAKERS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DIM = 32


@functools.cache
def script():
    """Returns launch/mteb_rules.py as a module."""
    spec = importlib.util.spec_from_file_location("mteb_rules_script", REPOSITORY / "launch" / "mteb_rules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_of_rules_is_what_the_installed_mteb_says():
    assert script().PATH.read_text(encoding="utf-8") == script().text(), "run: python launch/mteb_rules.py"


def test_every_text_task_of_mteb_is_in_the_file():
    names = {task.metadata.name for task in script().text_tasks()}
    held = [name for kinds in mteb_rules.load()["tasks"].values() for own in kinds.values() for name in own]
    assert set(held) == names and len(held) == len(names) > 1000


def _kind_of_rule(field, value) -> tuple:
    """Returns what tells rules apart: numbers of one field follow the same path."""
    return field, value if field == "main" or isinstance(value, bool) or value is None else "a number"


def representatives() -> dict[str, tuple[str, str]]:
    """Returns {name: (our type, MTEB's type)} of one task for each set of rules that a suite can state."""
    rules, chosen = mteb_rules.load(), {}
    for ours, kinds in rules["tasks"].items():
        for theirs, names in kinds.items():
            for name in names:
                own = {k: v for k, v in rules["differ"].get(name, {}).items() if k != "subsets"}
                if "unsupported" not in own:
                    key = (ours, theirs, *sorted(map(str, (_kind_of_rule(*item) for item in own.items()))))
                    chosen.setdefault(key, name)
    return {name: key[:2] for key, name in chosen.items()}


@pytest.fixture(autouse=True)
def not_rounded(monkeypatch):
    """mteb rounds scores of rankings to five digits, which would hide what is asked here: it is made to keep them all."""
    kept = lambda value, digits=None: round(value) if digits is None else value  # noqa: E731
    monkeypatch.setattr(retrieval_metrics, "round", kept, raising=False)


@functools.cache
def noise(text: str) -> np.ndarray:
    return np.random.default_rng(list(text.encode())).standard_normal(DIM)


def vector(text: str) -> np.ndarray:
    """Returns a unit vector of a text, an empty one too, nearer to that of a text which shares words with it."""
    x = noise(f"text: {text}") + sum((noise(word) for word in text.split()), np.zeros(DIM))
    return (x / np.linalg.norm(x)).astype(np.float32)


class Lookup:
    """The vectors of cleaned texts: an encoder of mteb's protocol, and with `ours` one of ours."""

    similarity = staticmethod(cos_sim)
    similarity_pairwise = staticmethod(pairwise_cos_sim)

    @property
    def mteb_model_meta(self):
        return mteb.models.ModelMeta.create_empty(overwrites={"name": "local/lookup", "revision": "1"})

    def encode(self, inputs, **options):
        return np.array([vector(clean(text)) for batch in inputs for text in batch["text"]], np.float32)

    def ours(self, items, *, prompt, progress=None, allow_empty=False):
        texts = [f"{item.title or ''} {item.text}" for item in items]
        assert allow_empty or all(text.strip() for text in texts)
        return np.array([vector(clean(text)) for text in texts], np.float32)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", representatives())
def test_scores_by_the_rules_of_a_task_are_those_of_mteb(name, tmp_path, record_property):
    kind, _ = representatives()[name]
    task = mteb.get_task(name)
    entry = {"name": "mine", "type": kind, "mteb_task": name}
    (tmp_path / "data").mkdir()
    entry["path"] = f"data/{MAKERS[kind](tmp_path / 'data', task, entry)}"
    (tmp_path / "suite.json").write_text(json.dumps({"tasks": [entry]}))
    theirs = task.evaluate(Lookup(), task.eval_splits[0], [task.hf_subsets[0]], encode_kwargs={})
    theirs = theirs[task.hf_subsets[0]]
    suite = suites.read_suite(tmp_path / "suite.json")
    found = runner.run(suite, Embeddings(Lookup().ours, template), [View(DIM)], search.top_k)
    ours, sample = found.scores["mine"][str(DIM)], found.samples["mine"][str(DIM)]
    apart = {n: (value, theirs[n]) for n, value in ours.items() if not abs(value - theirs[n]) <= 1e-6}
    record_property("largest_difference", float(max(abs(value - theirs[n]) for n, value in ours.items())))
    assert not apart
    assert suite.tasks[0].main == task.metadata.main_score
    assert ours[suite.tasks[0].main] == pytest.approx(theirs["main_score"], abs=1e-6)
    assert math.isfinite(theirs["main_score"])
    # What intervals are drawn from gives the main score. Two MTEB definitions are of other items than those that are drawn.
    if not task.metadata.main_score.startswith("max_") or kind == "pair_classification":
        tolerance = 0.05 if kind == "classification" and task.is_cross_validation else 1e-6
        assert sample.of(np.arange(len(sample))) == pytest.approx(theirs["main_score"], abs=tolerance)
