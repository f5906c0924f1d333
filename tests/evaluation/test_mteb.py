"""What MTEB is given: our prompts by its keys, vectors as a view serves them; and the means that papers print of its results."""

import importlib.util
import types

import numpy as np
import pytest

from embed.errors import UsageError
from embed.evaluation import mteb
from embed.evaluation.views import View
from embed.types import Item

PROMPTS = {"query": "q: {content}", "document": "d: {content}", "clustering": "c: {content}", "none": "{content}"}


@pytest.mark.parametrize(
    ("task", "kind", "side", "wanted"),
    [
        ("NFCorpus", "Retrieval", "query", "query"),
        ("NFCorpus", "Retrieval", "document", "document"),
        ("AskUbuntu", "Reranking", "document", "document"),
        ("Tatoeba", "BitextMining", None, "query"),
        ("TwentyNewsgroups", "Clustering", None, "clustering"),
        ("STSBenchmark", "STS", None, "none"),  # this model has no prompt for it
        ("Core17", "InstructionReranking", "query", "query"),
    ],
)
def test_the_most_special_prompt_of_the_model_is_chosen(task, kind, side, wanted):
    assert mteb.prompt_name(PROMPTS, task, kind, side) == wanted


def test_a_prompt_that_bears_the_name_of_the_task_goes_first():
    assert mteb.prompt_name({**PROMPTS, "NFCorpus": "n: {content}"}, "NFCorpus", "Retrieval", "query") == "NFCorpus"


class Model:
    prompts, digest = PROMPTS, "abcdef"

    def __init__(self, max_length=256, dtype="float32", reads_images_in_texts=False):
        self.asked = []
        self.max_length, self.dtype, self.reads_images_in_texts = max_length, dtype, reads_images_in_texts

    def encode(self, texts, prompt, allow_empty):
        assert allow_empty
        self.asked.append((texts, prompt))
        return np.random.default_rng(0).standard_normal((len(texts), 8)).astype(np.float32)


def test_images_are_items_and_an_image_with_a_text_is_one_item():
    model, described = Model(), types.SimpleNamespace(name="Flickr", type="Any2AnyRetrieval")
    encoder = mteb.MtebEncoder(model, "mine")
    options = {"task_metadata": described, "hf_split": "test", "hf_subset": "default"}
    vectors = encoder.encode([{"image": ["i1", "i2"]}, {"image": ["i3"], "text": ["a"]}, {"text": ["b"]}], **options)
    expected = [Item(images=("i1",)), Item(images=("i2",)), Item("a", images=("i3",)), "b"]
    assert model.asked == [(expected, "none")] and vectors.shape == (4, 8)


def test_a_model_that_reads_images_in_texts_has_them_in_front():
    model, described = Model(reads_images_in_texts=True), types.SimpleNamespace(name="Flickr", type="Any2AnyRetrieval")
    options = {"task_metadata": described, "hf_split": "test", "hf_subset": "default"}
    mteb.MtebEncoder(model, "mine").encode(
        [{"image": ["i1"]}, {"image": ["i2"], "text": ["a"]}, {"text": ["b"]}], **options
    )
    assert model.asked == [([Item(images=("i1",)), Item("[MASK_0] a", images=("i2",)), "b"], "none")]


def test_what_decides_the_vectors_decides_where_mteb_files_them():
    models = [Model(), Model(max_length=6), Model(dtype="bfloat16"), Model()]
    revisions = [mteb.MtebEncoder(model, "mine")._meta["revision"] for model in models]
    assert len(set(revisions)) == 3 and revisions[0] == revisions[3]


def test_batches_are_embedded_at_once_and_served_as_the_view_says():
    model, described = Model(), types.SimpleNamespace(name="NFCorpus", type="Retrieval")
    encoder = mteb.MtebEncoder(model, "mine", View(4, "binary-rescored"))
    options = {"task_metadata": described, "hf_split": "test", "hf_subset": "default", "batch_size": 2}
    batches = [{"text": ["a", "b"]}, {"text": ["  "]}]
    queries = encoder.encode(batches, prompt_type="query", **options)
    documents = encoder.encode(batches, prompt_type=types.SimpleNamespace(value="document"), **options)
    # An empty text, which some of MTEB's sets have, must not end the evaluation.
    assert model.asked == [(["a", "b", "  "], "query"), (["a", "b", "  "], "document")]
    assert queries.shape == documents.shape == (3, 4)
    assert len(np.unique(np.abs(documents))) == 1 and len(np.unique(np.abs(queries))) > 1


SCORES = {
    "a": {"type": "STS", "score": 0.8},
    "b": {"type": "STS", "score": 0.6},
    "c": {"type": "Retrieval", "score": 0.3},
}


def test_means_over_tasks_and_over_types():
    assert mteb.task_mean(SCORES) == pytest.approx(1.7 / 3)
    assert mteb.type_mean(SCORES) == pytest.approx(0.5)


def test_borda_counts_the_models_that_are_beaten():
    scores = {"x": {"t": 0.5, "u": 0.9, "v": 0.1}, "y": {"t": 0.5, "u": 0.8, "v": 0.3}, "z": {"t": 0.1, "u": 0.1}}
    # x: 1.5 + 2 + 0, y: 1.5 + 1 + 1, z: nothing
    assert mteb.borda(scores) == {"x": 1, "y": 1, "z": 3}


def test_without_mteb_the_way_to_get_it_is_told():
    if importlib.util.find_spec("mteb") is not None:
        pytest.skip("mteb is installed")
    with pytest.raises(UsageError, match=r"pip install 'embed\[eval\]'"):
        mteb.chosen_tasks("STSBenchmark")
