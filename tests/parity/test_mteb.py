"""MTEB on an exported folder: its own choice of the prompt is the one the model was trained with, for every type of task."""

import pytest
from parity_foreign import PROMPTS, SHAPES, TEXTS, Shape, convert_and_export, embed, open_reported

from embed.documents import read_json
from embed.inference import model as inference
from embed.text import apply_prompt, template

mteb = pytest.importorskip("mteb")
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper  # noqa: E402
from mteb.types import PromptType  # noqa: E402

# It warns of its own deprecations, and of every prompt that is not one of its kinds of tasks.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
# (a task of MTEB, the side that is encoded, our prompt)
CHOICES = [
    ("NFCorpus", "query", "query"),
    ("NFCorpus", "document", "document"),
    ("AskUbuntuDupQuestions", "query", "query"),
    ("AskUbuntuDupQuestions", "document", "document"),
    ("Core17InstructionRetrieval", "query", "code retrieval"),
    ("Core17InstructionRetrieval", "document", "document"),
    ("STSBenchmark", None, "sentence similarity"),
    ("TwitterSemEval2015", None, "sentence similarity"),
    ("Banking77Classification", None, "classification"),
    ("EmotionClassification", None, "classification"),
    ("MultiEURLEXMultilabelClassification", None, "classification"),
    ("TwentyNewsgroupsClustering.v2", None, "clustering"),
    ("BUCC.v2", None, "query"),
    ("SummEvalSummarization.v2", None, "summarization"),
]
TYPES = {
    "Retrieval",
    "Reranking",
    "STS",
    "PairClassification",
    "Classification",
    "MultilabelClassification",
    "Clustering",
    "BitextMining",
    "Summarization",
}


def metadata(task: str):
    """Returns what MTEB knows of a task, without its data."""
    return mteb.get_task(task).metadata


def as_type(side):
    return None if side is None else PromptType(side)


@pytest.fixture(scope="module")
def wrapped(made):
    """MTEB's own encoder around the exported folder."""
    return SentenceTransformerEncoderWrapper(open_reported(made("embeddinggemma").export)[0])


@pytest.fixture(scope="module")
def prompts(made):
    """Our prompts by name."""
    return read_json(made("embeddinggemma").bundle / "model.json")["prompts"]


def test_every_type_is_asked_for():
    found = {metadata(task).type for task, *_ in CHOICES}
    assert found >= TYPES
    assert found & {"InstructionRetrieval", "InstructionReranking"}


@pytest.mark.parametrize(("task", "side", "ours"), CHOICES)
def test_chosen_prompt_is_ours(task, side, ours, wrapped, prompts):
    key = wrapped.get_prompt_name(metadata(task), as_type(side))
    assert key is not None
    expected = apply_prompt(template(ours, prompts), "x")
    assert wrapped.model.prompts[key] + "x" == expected
    assert wrapped.model_prompts[key] == wrapped.model.prompts[key]
    assert expected != "x"


@pytest.mark.parametrize("kind", ["InstructionRetrieval", "InstructionReranking"])
@pytest.mark.parametrize(("side", "ours"), [("query", "code retrieval"), ("document", "document")])
def test_retrieval_by_instruction(kind, side, ours, wrapped, prompts):
    described = metadata("NFCorpus").model_copy(update={"type": kind, "name": "Mine"})
    key = wrapped.get_prompt_name(described, PromptType(side))
    assert wrapped.model.prompts[key] + "x" == apply_prompt(template(ours, prompts), "x")


def test_keys_that_mteb_keeps_are_all_valid(wrapped):
    kept = wrapped.validate_task_to_prompt_name(wrapped.model_prompts)  # raises KeyError at any other
    assert {"query", "document", "Retrieval-query", "Retrieval-document", "STS", "BitextMining"} <= kept.keys()


def test_prompts_of_every_purpose_differ(prompts):
    names = (
        "query",
        "document",
        "code retrieval",
        "sentence similarity",
        "classification",
        "clustering",
        "summarization",
    )
    assert len({template(name, prompts) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("task", "side", "ours"), [c for c in CHOICES if c[0] in ("NFCorpus", "STSBenchmark", "BUCC.v2")]
)
def test_vectors_of_mteb_are_ours(task, side, ours, wrapped, made):
    from datasets import Dataset
    from torch.utils.data import DataLoader

    inputs = DataLoader(Dataset.from_dict({"text": list(TEXTS)}), batch_size=len(TEXTS))
    options = {"hf_split": "test", "hf_subset": "default", "prompt_type": as_type(side), "show_progress_bar": False}
    found = wrapped.encode(inputs, task_metadata=metadata(task), **options)
    expected = inference.open_model(made("embeddinggemma").bundle).encode(TEXTS, prompt=ours)
    assert found.shape == expected.shape
    assert abs(found - expected).max() <= 1e-5


@pytest.mark.parametrize(("task", "side", "ours"), CHOICES)
def test_a_model_without_prompts_is_given_none(task, side, ours, made):
    assert not SHAPES["modernbert-plain"].prompts
    plain = SentenceTransformerEncoderWrapper(open_reported(made("modernbert-plain").export)[0])
    key = plain.get_prompt_name(metadata(task), as_type(side))
    assert (plain.model_prompts or {}).get(key, "") == ""


def test_a_folder_with_the_usual_keys_is_chosen_from_alike(wrapped, made, tmp_path):
    """The foreign folder has bare keys for both sides; the export must choose the same words wherever that one was right."""
    foreign = SentenceTransformerEncoderWrapper(open_reported(made("embeddinggemma").foreign)[0])
    for task, side, _ in CHOICES:
        asked = metadata(task), as_type(side)
        if asked[0].type in ("Reranking", "InstructionRetrieval", "InstructionReranking") and side == "document":
            continue
        theirs, ours = foreign.get_prompt_name(*asked), wrapped.get_prompt_name(*asked)
        if theirs is not None and asked[0].type != "InstructionReranking":
            assert wrapped.model.prompts[ours] == foreign.model.prompts[theirs], task


def test_prompts_given_at_conversion_are_chosen(tmp_path):
    made = convert_and_export(Shape("bert", prompts={"query": "q: ", "document": "d: "}), tmp_path / "first")
    given = ["--prompt=clustering=group: ", "--prompt=sentence similarity=alike: {content}"]
    assert embed("convert", made.foreign, tmp_path / "bundle", *given) == 0
    assert embed("export", tmp_path / "bundle", tmp_path / "export") == 0
    found = SentenceTransformerEncoderWrapper(open_reported(tmp_path / "export")[0])
    choice = {
        task: found.model_prompts.get(found.get_prompt_name(metadata(task), as_type(s))) for task, s, _ in CHOICES
    }
    assert choice["TwentyNewsgroupsClustering.v2"] == "group: "
    assert choice["STSBenchmark"] == choice["TwitterSemEval2015"] == "alike: "
    assert choice["Banking77Classification"] == "" != PROMPTS["Classification"]
    assert choice["BUCC.v2"] == "q: "
