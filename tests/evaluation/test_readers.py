"""Every type of task: its file is read plain and packed, with the prompt and the score that stand for it."""

import image_files
import pytest
from task_files import (
    PACKED,
    read,
    refused,
    write_instructions,
    write_json,
    write_retrieval,
    write_tsv,
)

from embed.evaluation import readers

PROMPTS = {
    "retrieval": "query",
    "reranking": "query",
    "instruction_reranking": "code retrieval",
    "xor_retrieve": "query",
    "xtreme_up": "query",
    "sts": "sentence similarity",
    "summarization": "summarization",
    "pair_classification": "sentence similarity",
    "bitext": "query",
    "classification": "classification",
    "multilabel_classification": "classification",
    "clustering": "clustering",
    "regression": "none",
    "image_retrieval": "query",
    "image_text_retrieval": "query",
    "image_classification": "none",
    "zero_shot_classification": "document",
    "image_clustering": "none",
    "visual_sts": "none",
    "compositionality": "query",
    "dense": "none",
    "universal_retrieval": "none",
    "mixed_retrieval": "query",
}


MAIN = {
    "retrieval": "ndcg_at_10",
    "reranking": "map_at_1000",
    "instruction_reranking": "p-MRR",
    "xor_retrieve": "recall_at_5kt",
    "xtreme_up": "mrr_at_10",
    "sts": "cosine_spearman",
    "summarization": "cosine_spearman",
    "pair_classification": "max_ap",
    "bitext": "f1",
    "classification": "accuracy",
    "multilabel_classification": "accuracy",
    "clustering": "v_measure",
    "regression": "kendalltau",
    "image_retrieval": "ndcg_at_10",
    "image_text_retrieval": "ndcg_at_10",
    "image_classification": "accuracy",
    "zero_shot_classification": "accuracy",
    "image_clustering": "nmi",
    "visual_sts": "cosine_spearman",
    "compositionality": "accuracy",
    "dense": "miou",
    "universal_retrieval": "r1",
    "mixed_retrieval": "r1",
}


@pytest.fixture
def made(tmp_path):
    """A function that writes a small task of any type and returns (its path, the fields its entry needs)."""

    def make(kind, suffix=""):
        path = tmp_path / kind
        if kind == "retrieval":
            return write_retrieval(path, suffix=suffix), {}
        if kind == "reranking":
            rows = [{"query": "q", "positives": ["a"], "negatives": ["b", "c"]}]
            return write_json(tmp_path / f"{kind}.jsonl{suffix}", rows), {}
        if kind == "instruction_reranking":
            return write_instructions(path, suffix), {}
        if kind == "xor_retrieve":
            corpus = write_tsv(tmp_path / f"wiki.tsv{suffix}", "id text title", [("1", "Paris is a city.", "Paris")])
            rows = [{"id": "x", "question": "où", "lang": "fr", "answers": ["Paris"]}]
            return write_json(tmp_path / f"{kind}.jsonl{suffix}", rows), {"corpus_path": corpus}
        if kind == "xtreme_up":
            corpus = write_json(tmp_path / f"index.jsonl{suffix}", [{"id": "p1", "title": "T", "text": "x"}])
            write_json(path / f"as.jsonl{suffix}", [{"id": "p1", "question": "what"}])
            return path, {"corpus_path": corpus}
        if kind == "sts":
            return write_tsv(tmp_path / f"s.tsv{suffix}", "sentence1 sentence2 score", [("a", "b", "4.5")]), {}
        if kind == "summarization":
            rows = [{"human_summaries": ["h"], "machine_summaries": ["m", "n"], "relevance": [1, 2.5]}]
            return write_json(tmp_path / f"{kind}.jsonl{suffix}", rows), {}
        if kind == "pair_classification":
            rows = [("a", "b", "1"), ("c", "d", "0")]
            return write_tsv(tmp_path / f"p.tsv{suffix}", "sentence1 sentence2 label", rows), {}
        if kind == "bitext":
            return write_tsv(tmp_path / f"b.tsv{suffix}", "src tgt", [("ein Haus", "a house")]), {}
        if kind == "clustering":
            rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
            return write_json(tmp_path / f"{kind}.jsonl{suffix}", rows), {}
        if kind == "regression":
            for split in ("train", "test"):
                write_json(path / f"{split}.jsonl{suffix}", [{"text": f"{split} {x}", "value": x} for x in (1, 2.5)])
            return path, {}
        if kind in image_files.KINDS:
            return image_files.write(kind, path, suffix), {}
        labels = (["x"], ["x", "y"]) if kind == "multilabel_classification" else ("x", "y")
        for split in ("train", "test"):
            write_json(path / f"{split}.jsonl{suffix}", [{"text": f"{split} {x}", "label": x} for x in labels])
        return path, {}

    return make


@PACKED
@pytest.mark.parametrize("kind", PROMPTS)
def test_every_type_is_read_plain_and_packed(made, kind, suffix):
    assert set(readers.TYPES) == set(PROMPTS)
    path, fields = made(kind, suffix)
    task = read(kind, path, **fields)
    assert (task.name, task.type, task.prompt, task.main, task.languages) == ("t", kind, PROMPTS[kind], MAIN[kind], ())
    assert all(len(part) for part in task.parts().values())


@pytest.mark.parametrize("kind", PROMPTS)
def test_prompt_main_and_languages_may_be_given(made, kind):
    path, fields = made(kind)
    task = read(kind, path, prompt="none", main=MAIN[kind], languages=["de", "en"], **fields)
    assert task.prompt == "none" and list(task.languages) == ["de", "en"]
    assert all(part.prompt in ("none", "document") for part in task.parts().values())


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_score_that_the_type_does_not_have_is_refused(made, kind):
    path, fields = made(kind)
    refused(kind, path, "'t'", "ndcg_at_11", main="ndcg_at_11", **fields)


def test_an_unknown_type_is_refused_with_a_suggestion(tmp_path):
    refused("retreival", tmp_path, "'t'", "'retreival'", "did you mean 'retrieval'?")
    refused("poetry", tmp_path, "known: bitext, classification, clustering")


@pytest.mark.parametrize("kind", PROMPTS)
def test_nothing_at_the_path_is_refused(tmp_path, made, kind):
    _, fields = made(kind)
    refused(kind, tmp_path / "gone", tmp_path / "gone", **fields)


@pytest.mark.parametrize(
    "kind",
    ["reranking", "xor_retrieve", "sts", "summarization", "pair_classification", "bitext", "clustering"],
)
def test_a_file_without_rows_is_refused(made, kind):
    path, fields = made(kind)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] if path.suffix == ".tsv" else "\n")
    refused(kind, path, path, **fields)


@pytest.mark.parametrize("kind", ["reranking", "xor_retrieve", "summarization", "clustering"])
def test_lines_that_are_no_json_objects_are_named(made, kind):
    for line in ('{"text": ', "[1, 2]"):
        path, fields = made(kind)
        path.write_text(path.read_text() + line + "\n")
        refused(kind, path, f"{path}:{len(path.read_text().splitlines())}", **fields)
