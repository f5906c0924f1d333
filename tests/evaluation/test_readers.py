"""File formats of every type of task: read whole, plain and packed; wrong ones are refused with file, line and advice."""

import gzip
import json

import pytest

from embed.errors import DataError
from embed.evaluation import ranking, readers

QUERIES = [{"id": "q1", "text": "red fox"}, {"id": "q2", "text": "blue sky"}, {"_id": 3, "text": " grass "}]
CORPUS = [
    {"id": "d1", "title": "Fox", "text": "A red fox."},
    {"id": "d2", "text": "The sky."},
    {"_id": 7, "text": "Grass."},
]
QRELS = [("q1", "d1", "2"), ("q2", "d2", "1"), ("3", "7", "1"), ("q1", "d2", "0")]
PACKED = pytest.mark.parametrize("suffix", ["", ".gz"])


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line}\n" for line in lines)
    with gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def write_json(path, rows):
    return write_lines(path, [json.dumps(row, ensure_ascii=False) for row in rows])


def write_tsv(path, header, rows):
    return write_lines(path, ["\t".join(header.split()), *map("\t".join, rows)])


def write_retrieval(folder, queries=QUERIES, corpus=CORPUS, qrels=QRELS, suffix="", qrels_name="qrels.tsv"):
    write_json(folder / f"queries.jsonl{suffix}", queries)
    write_json(folder / f"corpus.jsonl{suffix}", corpus)
    write_tsv(folder / f"{qrels_name}{suffix}", "query-id corpus-id score", qrels)
    return folder


def read(kind, path, **fields):
    return readers.read({"name": "t", "type": kind, **fields}, path)


def refused(kind, path, *parts, **fields):
    """Reading is a DataError of one line that holds every one of `parts`."""
    with pytest.raises(DataError) as caught:
        read(kind, path, **fields)
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 65
    for part in parts:
        assert str(part) in message
    return message


# every type


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
    assert all(len(part.texts) for part in task.parts().values())


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


# retrieval


def test_a_retrieval_folder_is_read_whole(tmp_path):
    task = read("retrieval", write_retrieval(tmp_path))
    assert task.query_ids == ["q1", "q2", "3"] and task.queries == ["red fox", "blue sky", " grass "]
    assert task.corpus_ids == ["d1", "d2", "7"] and task.corpus == ["A red fox.", "The sky.", "Grass."]
    assert task.titles == ["Fox", "", ""]
    assert task.qrels == {"q1": {"d1": 2.0, "d2": 0.0}, "q2": {"d2": 1.0}, "3": {"7": 1.0}}


@PACKED
@pytest.mark.parametrize("qrels_name", ["qrels.tsv", "qrels/test.tsv", "qrels/dev.tsv"])
def test_judgements_may_be_named_as_in_beir(tmp_path, suffix, qrels_name):
    task = read("retrieval", write_retrieval(tmp_path, suffix=suffix, qrels_name=qrels_name))
    assert task.qrels["3"] == {"7": 1.0}


@pytest.mark.parametrize("part", ["queries", "corpus"])
def test_ids_must_be_unique(tmp_path, part):
    rows = {"queries": QUERIES, "corpus": CORPUS}
    rows[part] = [*rows[part], {"id": 3 if part == "queries" else "7", "text": "again"}]
    refused("retrieval", write_retrieval(tmp_path, **rows), f"{part}.jsonl:4", "stands twice", "make ids unique")


def test_judgements_of_unknown_ids_count_as_in_mteb(tmp_path):
    rows = [*QRELS, ("q1", "gone", "1"), ("q9", "d1", "1"), ("q9", "d2", "1")]
    task = read("retrieval", write_retrieval(tmp_path, qrels=rows))
    assert task.qrels["q1"] == {"d1": 2.0, "d2": 0.0, "gone": 1.0} and "q9" not in task.qrels
    assert task.remarks == (
        "1 judgements name documents that are not in the corpus; they count as never found, as in MTEB",
        "2 judgements are of queries that are not there; they are left out, as in MTEB",
    )


def test_of_judgements_that_stand_twice_the_last_counts(tmp_path):
    task = read("retrieval", write_retrieval(tmp_path, qrels=[*QRELS, ("q2", "d2", "1"), ("q1", "d1", "3")]))
    assert task.qrels["q1"]["d1"] == 3.0
    assert task.remarks == ("1 judgements stand again with another relevance; the last one counts, as in MTEB",)
    assert read("retrieval", write_retrieval(tmp_path, qrels=[*QRELS, ("q2", "d2", "1")])).remarks == ()


def test_judgements_of_unknown_queries_alone_are_refused(tmp_path):
    write_retrieval(tmp_path, qrels=[("q8", "d1", "1"), ("q9", "d1", "1")])
    refused("retrieval", tmp_path, "qrels.tsv", "judges no query of the folder; correct")


@pytest.mark.parametrize(
    "lines", [["q1\t0\td1\t1", "3\t0\t7\t1"], ["q1 Q0 d1 1", "3 Q0 7 1"], ["q1\td1\t1", "3\t7\t1"]]
)
@pytest.mark.parametrize("name", ["qrels.tsv", "qrels.dev.small.tsv", "qrels.trec8.txt.gz", "qrels.robust04", "qrels"])
def test_judgements_may_be_of_trec_or_without_a_header(tmp_path, name, lines):
    write_retrieval(tmp_path)
    (tmp_path / "qrels.tsv").unlink()
    write_lines(tmp_path / name, lines)
    assert read("retrieval", tmp_path).qrels == {"q1": {"d1": 1.0}, "3": {"7": 1.0}}


def test_several_judgements_of_other_names_are_refused(tmp_path):
    write_retrieval(tmp_path)
    for name in ("qrels.a.tsv", "qrels.b.tsv"):
        write_lines(tmp_path / name, ["q1\td1\t1"])
    assert len(read("retrieval", tmp_path).qrels) == 3  # qrels.tsv is there
    (tmp_path / "qrels.tsv").unlink()
    refused("retrieval", tmp_path, "several judgements (qrels.a.tsv, qrels.b.tsv)", "call the right one qrels.tsv")


@pytest.mark.parametrize("score", ["one", "", "nan"])
def test_a_judgement_that_is_no_number_is_refused(tmp_path, score):
    refused("retrieval", write_retrieval(tmp_path, qrels=[*QRELS, ("q2", "d1", score)]), "qrels.tsv:6", "correct")


def test_judgements_without_a_score_column_are_refused(tmp_path):
    write_retrieval(tmp_path)
    write_lines(tmp_path / "qrels.tsv", ["query-id\tcorpus-id", "q1\td1"])
    refused("retrieval", tmp_path, "qrels.tsv:1", "no column for the relevance")


def test_judgements_without_a_relevant_document_are_refused(tmp_path):
    write_retrieval(tmp_path, qrels=[("q1", "d1", "0"), ("q2", "d2", "-1")])
    refused("retrieval", tmp_path, tmp_path, "no query has a relevant document; correct the judgements")


@pytest.mark.parametrize("name", ["queries.jsonl", "corpus.jsonl", "qrels.tsv"])
def test_a_retrieval_folder_without_a_part_is_refused(tmp_path, name):
    write_retrieval(tmp_path)
    (tmp_path / name).unlink()
    refused("retrieval", tmp_path, name, "queries, corpus and qrels")


@pytest.mark.parametrize(
    "row",
    [
        {"id": "d9"},
        {"id": "d9", "title": "  "},
        {"text": "x"},
        {"id": "d9", "text": 3},
        {"id": None, "text": "x"},
        {"id": {}, "text": "x"},
        {"id": ["d9"], "text": "x"},
        {"id": True, "text": "x"},
        {"id": "d9", "text": "x", "title": 3},
    ],
)
def test_a_document_without_id_text_or_with_a_title_that_is_no_text_is_refused(tmp_path, row):
    refused("retrieval", write_retrieval(tmp_path, corpus=[*CORPUS, row]), "corpus.jsonl:4")


def test_texts_are_left_to_the_model_and_a_title_may_be_missing(tmp_path):
    rows = [{"id": "d1", "title": "Fox", "text": " Cafe\u0301 "}, {"id": "d2", "title": None, "text": "x"}, CORPUS[2]]
    task = read("retrieval", write_retrieval(tmp_path, corpus=rows))
    assert task.corpus[0] == " Cafe\u0301 " and task.titles == ["Fox", "", ""]


def test_a_document_may_be_a_title_alone_or_empty(tmp_path):
    rows = [
        {"id": "d1", "title": "Fox", "text": " "},
        {"id": "d2", "title": "Sky", "text": None},
        {"id": "7", "title": "Grass"},
        {"id": "e1", "title": " ", "text": ""},
        {"id": "e2", "text": "\u3000"},
    ]
    task = read("retrieval", write_retrieval(tmp_path, corpus=rows, queries=[*QUERIES, {"id": "q4", "text": ""}]))
    assert task.corpus == ["Fox", "Sky", "Grass", "", ""] and task.titles == [""] * 5
    assert task.remarks == (
        "1 queries are empty; they are embedded as empty texts, as in MTEB",
        "2 documents are empty; they are embedded as empty texts, as in MTEB",
    )


def test_a_query_is_followed_by_its_instruction(tmp_path):
    queries = [{**QUERIES[0], "instruction": "in winter"}, {**QUERIES[1], "instruction": None}, QUERIES[2]]
    assert read("retrieval", write_retrieval(tmp_path, queries=queries)).queries == [
        "red fox in winter",
        "blue sky",
        " grass ",
    ]
    queries[0]["instruction"] = 3
    refused("retrieval", write_retrieval(tmp_path, queries=queries), "queries.jsonl:1", "'instruction'")


@pytest.mark.parametrize("row", [{"id": "q9"}, {"id": "q9", "title": "no text"}, {"id": "q9", "text": ["a", "b"]}])
def test_a_query_without_a_text_is_refused(tmp_path, row):
    refused("retrieval", write_retrieval(tmp_path, queries=[*QUERIES, row]), "queries.jsonl:4", "'text'")


def test_rules_are_those_of_the_entry(tmp_path):
    write_retrieval(tmp_path)
    assert read("retrieval", tmp_path).rules == ranking.Rules()
    task = read("retrieval", tmp_path, k_values=[2, 25], ignore_identical_ids=True, main="ndcg_at_25")
    assert task.rules == ranking.Rules((2, 25), ignore_identical_ids=True) and task.main == "ndcg_at_25"
    refused("retrieval", tmp_path, "main 'ndcg_at_10'", k_values=[2, 25], main="ndcg_at_10")
    refused("retrieval", tmp_path, "main 'accuracy'", k_values=[2, 25], main="accuracy")


def test_queries_that_are_documents_too_are_told(tmp_path):
    corpus = [*CORPUS, {"id": "q1", "text": "red fox"}, {"id": "q2", "text": "another text"}]
    write_retrieval(tmp_path, corpus=corpus)
    (remark,) = read("retrieval", tmp_path).remarks
    assert remark == "1 queries are documents too, by id and text; set ignore_identical_ids to leave them out"
    assert read("retrieval", tmp_path, ignore_identical_ids=False).remarks == ()
    assert read("retrieval", tmp_path, ignore_identical_ids=True).remarks == ()


@pytest.mark.parametrize("kind", ["retrieval", "reranking"])
def test_lists_of_candidates_are_read(tmp_path, kind):
    lists = [{"query-id": "q1", "corpus-ids": ["d2", "d1"]}, {"query-id": 3, "corpus-ids": [7]}]
    write_json(write_retrieval(tmp_path) / "top_ranked.jsonl", lists)
    task = read(kind, tmp_path)
    assert task.type == kind and task.candidates == {"q1": ["d2", "d1"], "3": ["7"]}
    assert task.remarks == ("1 queries have no candidates in top_ranked; they score 0, as in MTEB",)
    write_json(tmp_path / "top_ranked.jsonl", [{"query-id": "q1", "corpus-ids": ["d9"]}])
    refused(kind, tmp_path, "top_ranked.jsonl:1", "'d9'")


def test_a_folder_to_rerank_needs_candidates(tmp_path):
    refused("reranking", write_retrieval(tmp_path), "top_ranked.jsonl (.gz)")


@pytest.mark.parametrize(
    "fields, part", [({"ignore_identical_ids": True}, "needs ids"), ({"main": "paired_accuracy"}, "ids of queries")]
)
def test_lines_of_candidates_have_no_ids(tmp_path, fields, part):
    path = write_json(tmp_path / "r.jsonl", [{"query": "q", "positives": ["a"], "negatives": ["b"]}])
    refused("reranking", path, part, "give MTEB's folder", **fields)


# reranking


def test_candidates_are_the_positives_and_then_the_negatives(tmp_path):
    rows = [
        {"query": "one", "positives": ["a", "b"], "negatives": ["c"]},
        {"query": "two", "positive": ["d"], "negative": ["e", "f"]},
    ]
    task = read("reranking", write_json(tmp_path / "r.jsonl", rows))
    assert task.queries == ["one", "two"] and task.candidates == [["a", "b", "c"], ["d", "e", "f"]]
    assert task.relevant == [[True, True, False], [True, False, False]]


@pytest.mark.parametrize(
    "row, field",
    [
        ({"query": "q", "positives": ["a"]}, "'negatives'"),
        ({"query": "q", "positives": ["a"], "negatives": []}, "'negatives'"),
        ({"query": "q", "negatives": ["a"]}, "'positives'"),
        ({"query": "q", "positives": "a", "negatives": ["b"]}, "'positives'"),
        ({"positives": ["a"], "negatives": ["b"]}, "'query'"),
        ({"query": None, "positives": ["a"], "negatives": ["b"]}, "'query'"),
        ({"query": "q", "positives": ["a"], "negatives": ["b", None]}, "negatives"),
        ({"query": "q", "positives": [3], "negatives": ["b"]}, "positives"),
    ],
)
def test_a_query_without_both_kinds_of_candidates_is_refused(tmp_path, row, field):
    good = {"query": "q", "positives": ["a"], "negatives": ["b"]}
    path = write_json(tmp_path / "r.jsonl", [good, row])
    refused("reranking", path, f"{path}:2", field)


# reranking by instruction


def write_instructions(folder, suffix="", **changes):
    parts = {
        "queries": [
            {"id": "q1-og", "text": "foxes", "instruction": "about animals"},
            {"id": "q1-changed", "text": "foxes", "instruction": "not red ones"},
            {"id": "q2-og", "text": "sky"},
            {"id": "q2-changed", "text": "sky", "instruction": None},
        ],
        "corpus": CORPUS,
        "top_ranked": [
            {"query-id": f"{q}-{end}", "corpus-ids": ["d1", "d2", 7]} for q in ("q1", "q2") for end in ("og", "changed")
        ],
        "qrel_diff": [{"query-id": "q1", "corpus-ids": ["d1"]}, {"query-id": "q2", "corpus-ids": [7, "d2"]}],
        **changes,
    }
    for name, rows in parts.items():
        write_json(folder / f"{name}.jsonl{suffix}", rows)
    qrels = [(f"{q}-{end}", d, "1") for q in ("q1", "q2") for end in ("og", "changed") for d in ("d1", "7")]
    write_tsv(folder / f"qrels/test.tsv{suffix}", "query-id corpus-id score", qrels)
    return folder


def test_instructions_are_read_with_their_queries(tmp_path):
    task = read("instruction_reranking", write_instructions(tmp_path))
    assert task.query_ids == ["q1-og", "q1-changed", "q2-og", "q2-changed"]
    assert task.queries == ["foxes about animals", "foxes not red ones", "sky", "sky"]
    assert task.corpus_ids == ["d1", "d2", "7"] and task.titles == ["Fox", "", ""]
    assert task.candidates["q1-changed"] == ["d1", "d2", "7"]
    assert task.changed == {"q1": ["d1"], "q2": ["7", "d2"]}
    assert task.qrels["q2-og"] == {"d1": 1.0, "7": 1.0}


@pytest.mark.parametrize("name", ["queries", "corpus", "qrels", "top_ranked", "qrel_diff"])
def test_an_instruction_folder_without_a_part_is_refused(tmp_path, name):
    write_instructions(tmp_path)
    (tmp_path / ("qrels/test.tsv" if name == "qrels" else f"{name}.jsonl")).unlink()
    refused("instruction_reranking", tmp_path, name)


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"top_ranked": [{"query-id": "q1-og", "corpus-ids": ["d9"]}]}, ["top_ranked.jsonl:1", "'d9'"]),
        ({"top_ranked": [{"query-id": "q1-og", "corpus-ids": "d1"}]}, ["top_ranked.jsonl:1", "'corpus-ids'"]),
        ({"top_ranked": [{"corpus-ids": ["d1"]}]}, ["top_ranked.jsonl:1", "'query-id'"]),
        ({"top_ranked": [{"query-id": "q1-og", "corpus-ids": ["d1"]}]}, ["'q1-changed'", "top_ranked"]),
        ({"qrel_diff": [{"query-id": "q1", "corpus-ids": ["d9"]}]}, ["qrel_diff.jsonl:1", "'d9'"]),
        ({"qrel_diff": [{"query-id": "q9", "corpus-ids": ["d1"]}]}, ["qrel_diff", "'q9'", "'q9-og'"]),
    ],
)
def test_instruction_lists_must_fit_together(tmp_path, changes, parts):
    refused("instruction_reranking", write_instructions(tmp_path, **changes), *parts)


# xor_retrieve


def xor(tmp_path, *rows, corpus=(("1", "Paris is a city.", "Paris"),)):
    path = write_tsv(tmp_path / "wiki.tsv", "id text title", corpus)
    return write_json(tmp_path / "x.jsonl", rows), {"corpus_path": path}


QUESTION = {"id": "x", "question": "où ?", "lang": "fr", "answers": ["Paris"]}


def test_questions_answered_by_yes_or_no_alone_are_left_out(tmp_path):
    rows = [
        QUESTION,
        {**QUESTION, "answers": ["yes"]},
        {**QUESTION, "answers": ["no", "yes"]},
        {**QUESTION, "question": "quoi ?", "lang": "ar", "answers": ["yes", "Lyon", "7"]},
    ]
    path, fields = xor(tmp_path, *rows)
    task = read("xor_retrieve", path, **fields)
    assert task.questions == ["où ?", "quoi ?"] and task.question_languages == ["fr", "ar"]
    assert task.answers == [["Paris"], ["Lyon", "7"]]
    assert task.corpus == ["Paris is a city."] and task.titles == ["Paris"]


def test_questions_that_are_all_answered_by_yes_or_no_are_refused(tmp_path):
    path, fields = xor(tmp_path, {**QUESTION, "answers": ["no"]})
    refused("xor_retrieve", path, path, "nothing in it", **fields)


@pytest.mark.parametrize("field, value", [("question", None), ("lang", 3), ("answers", "Paris")])
def test_a_question_needs_its_fields(tmp_path, field, value):
    path, fields = xor(tmp_path, QUESTION, {**QUESTION, field: value})
    refused("xor_retrieve", path, f"{path}:2", repr(field), **fields)


@pytest.mark.parametrize("answer", ["", "  "])
def test_an_empty_answer_stands_in_every_passage_and_is_refused(tmp_path, answer):
    path, fields = xor(tmp_path, QUESTION, {**QUESTION, "answers": [answer]})
    refused("xor_retrieve", path, f"{path}:2", "answers", **fields)


@pytest.mark.parametrize("kind", ["xor_retrieve", "xtreme_up"])
def test_passages_must_be_named(made, kind):
    path, _ = made(kind)
    refused(kind, path, path, "'t'", "'corpus_path'")


def test_passages_may_be_lines_of_json_with_context(tmp_path):
    path, _ = xor(tmp_path, QUESTION)
    rows = [{"id": 1, "context": "Lyon.", "title": " Lyon "}, {"_id": "2", "text": "Nice."}]
    corpus = write_json(tmp_path / "wiki.jsonl.gz", rows)
    task = read("xor_retrieve", path, corpus_path=corpus)
    assert task.corpus == ["Lyon.", "Nice."] and task.titles == [" Lyon ", ""]


@pytest.mark.parametrize("row", [("1", "", "t"), ("1", "x")])
def test_a_passage_without_text_or_column_is_refused(tmp_path, row):
    path, fields = xor(tmp_path, QUESTION, corpus=[("0", "a", "b"), row])
    refused("xor_retrieve", path, f"{fields['corpus_path']}:3", **fields)


@pytest.mark.parametrize(
    "row", [{"text": "x"}, {"id": "2"}, {"id": "2", "text": 5}, {"id": "2", "text": "x", "title": 5}]
)
def test_a_passage_of_json_without_its_fields_is_refused(tmp_path, row):
    path, _ = xor(tmp_path, QUESTION)
    corpus = write_json(tmp_path / "wiki.jsonl", [{"id": "1", "text": "x"}, row])
    refused("xor_retrieve", path, f"{corpus}:2", corpus_path=corpus)


# xtreme_up


def xtreme(tmp_path, corpus=({"id": "p1", "text": "x"}, {"id": "p2", "text": "y"}), **files):
    for name, rows in files.items():
        write_json(tmp_path / "questions" / f"{name}.jsonl", rows)
    return tmp_path / "questions", {"corpus_path": write_json(tmp_path / "index.jsonl", corpus)}


def test_the_language_of_a_question_is_its_files(tmp_path):
    path, fields = xtreme(tmp_path, bho=[{"id": "p2", "question": "b"}], **{"as": [{"id": "p1", "question": "a"}]})
    write_json(path / "ta.dev.jsonl.gz", [{"id": "p1", "question": "c"}, {"id": "p2", "question": "d"}])
    task = read("xtreme_up", path, **fields)
    assert task.questions == ["a", "b", "c", "d"] and task.question_languages == ["as", "bho", "ta", "ta"]
    assert task.targets == ["p1", "p2", "p1", "p2"]
    assert task.corpus_ids == ["p1", "p2"] and task.corpus == ["x", "y"]


def test_a_folder_without_languages_is_refused(tmp_path):
    path, fields = xtreme(tmp_path)
    path.mkdir()
    refused("xtreme_up", path, path, "LANGUAGE.jsonl", **fields)


@pytest.mark.parametrize(
    "row, parts",
    [
        ({"id": "p9", "question": "a"}, ["'p9'", "index.jsonl"]),
        ({"question": "a"}, ["'id'"]),
        ({"id": "p1"}, ["question"]),
        ({"id": "p1", "question": " "}, ["question"]),
    ],
)
def test_a_question_without_its_passage_is_refused(tmp_path, row, parts):
    path, fields = xtreme(tmp_path, **{"as": [{"id": "p1", "question": "a"}, row]})
    refused("xtreme_up", path, "as.jsonl:2", *parts, **fields)


def test_two_passages_of_one_id_are_refused(tmp_path):
    corpus = [{"id": "p1", "text": "x"}, {"id": "p2", "text": "y"}, {"id": "p1", "text": "z"}]
    path, fields = xtreme(tmp_path, corpus, **{"as": [{"id": "p1", "question": "a"}]})
    refused("xtreme_up", path, "index.jsonl:3", "twice", **fields)


# pairs


STS = [("a cat", "a feline", "4.5"), ("a cat", "a car", "0"), (" one ", "two", "1.25")]


def test_pairs_and_their_scores_are_read(tmp_path):
    task = read("sts", write_tsv(tmp_path / "p.tsv", "sentence1 sentence2 score", STS))
    assert task.first == ["a cat", "a cat", " one "] and task.second == ["a feline", "a car", "two"]
    assert task.gold == [4.5, 0.0, 1.25]


def test_columns_may_stand_in_any_order_beside_others(tmp_path):
    rows = [("x", score, b, a) for a, b, score in STS]
    task = read("sts", write_tsv(tmp_path / "p.tsv", "genre score sentence2 sentence1", rows))
    assert task.first[:2] == ["a cat", "a cat"] and task.gold == [4.5, 0.0, 1.25]


@pytest.mark.parametrize("score", ["high", "", "nan", "inf"])
def test_a_score_that_is_no_number_is_refused(tmp_path, score):
    path = write_tsv(tmp_path / "p.tsv", "sentence1 sentence2 score", [*STS, ("a", "b", score)])
    refused("sts", path, f"{path}:5", "number in score")


@pytest.mark.parametrize(
    "kind, header, wanted",
    [
        ("sts", "sentence1 sentence2 gold", "no column 'score'"),
        ("sts", "first sentence2 score", "sentence1"),
        ("pair_classification", "sentence1 sentence2 gold", "no column 'label'"),
        ("bitext", "src other score", "tgt"),
        ("bitext", "other tgt score", "src"),
    ],
)
def test_columns_must_be_there(tmp_path, kind, header, wanted):
    path = write_tsv(tmp_path / "p.tsv", header, [("a", "b", "1"), ("c", "d", "0")])
    refused(kind, path, f"{path}:2", wanted)


@pytest.mark.parametrize("kind", ["sts", "pair_classification", "bitext"])
def test_an_empty_sentence_is_read_and_a_tab_too_many_refused(tmp_path, kind):
    header = {"sts": "sentence1 sentence2 score", "pair_classification": "sentence1 sentence2 label"}.get(
        kind, "src tgt n"
    )
    path = write_tsv(tmp_path / "p.tsv", header, [("a", "b", "0"), ("a", " ", "1"), ("", "b", "1")])
    first, second = (part.texts for part in read(kind, path).parts().values())
    assert first == ["a", "a", ""] and second == ["b", "", "b"]
    assert read(kind, path).remarks == ("2 texts are empty; they are embedded as empty texts, as in MTEB",)
    path = write_tsv(tmp_path / "p.tsv", header, [("a", "b", "0"), ("a", "b", "c", "1")])
    refused(kind, path, f"{path}:3")


def test_labels_are_zero_or_one(tmp_path):
    header = "sentence1 sentence2 label"
    path = write_tsv(tmp_path / "p.tsv", header, [("a", "b", "1"), ("c", "d", "0"), ("e", "f", "1.0")])
    assert read("pair_classification", path).labels == [1, 0, 1]
    for bad in ("2", "-1", "0.5", "yes", "", "nan"):
        path = write_tsv(tmp_path / "p.tsv", header, [("a", "b", "1"), ("c", "d", bad)])
        refused("pair_classification", path, f"{path}:3", "label")


@pytest.mark.parametrize("label", ["0", "1"])
def test_pairs_of_one_label_are_refused(tmp_path, label):
    rows = [("a", "b", label), ("c", "d", label)]
    path = write_tsv(tmp_path / "p.tsv", "sentence1 sentence2 label", rows)
    refused("pair_classification", path, path, f"every label is {label}", "pairs of both kinds are needed")


def test_translations_are_read_line_by_line(tmp_path):
    rows = [("ein Haus", "a house"), ('"Ja"', '"Yes"')]  # there is no quoting
    task = read("bitext", write_tsv(tmp_path / "b.tsv", "src tgt", rows))
    assert task.sources == ["ein Haus", '"Ja"'] and task.targets == ["a house", '"Yes"']


# summaries


SUMMARY = {"human_summaries": ["h"], "machine_summaries": ["m", "n"], "relevance": [1, 2.5]}


def test_summaries_are_read_with_a_grade_for_each(tmp_path):
    rows = [SUMMARY, {**SUMMARY, "human_summaries": ["a", "b"], "text": "not needed"}]
    task = read("summarization", write_json(tmp_path / "s.jsonl", rows))
    assert task.human == [["h"], ["a", "b"]] and task.machine == [["m", "n"]] * 2 and task.gold == [[1.0, 2.5]] * 2


@pytest.mark.parametrize(
    "field, value",
    [
        ("human_summaries", []),
        ("human_summaries", "h"),
        ("human_summaries", [None]),
        ("machine_summaries", ["m"]),
        ("machine_summaries", [1, 2]),
        ("relevance", [1]),
        ("relevance", None),
        ("relevance", ["good", "bad"]),
        ("relevance", [1, None]),
        ("relevance", [1, float("nan")]),
    ],
)
def test_summaries_without_a_grade_for_each_are_refused(tmp_path, field, value):
    path = write_json(tmp_path / "s.jsonl", [SUMMARY, {**SUMMARY, field: value}])
    refused("summarization", path, f"{path}:2")


# classification and clustering


def splits(folder, train, test, suffix=""):
    write_json(folder / f"train.jsonl{suffix}", train)
    write_json(folder / f"test.jsonl{suffix}", test)
    return folder


ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": 1}, {"text": "c", "label": True}]


def test_labels_are_read_as_texts(tmp_path):
    task = read("classification", splits(tmp_path, ROWS, ROWS[:1]))
    assert task.train == ["a", "b", "c"] and task.train_labels == ["x", "1", "1"]
    assert task.test == ["a"] and task.test_labels == ["x"] and task.per_label == 8


def test_the_parts_may_be_files_of_their_own(tmp_path):
    train = write_json(tmp_path / "one.jsonl", ROWS)
    test = write_json(tmp_path / "two.jsonl.gz", ROWS[1:])
    task = read("classification", test, train_path=train, samples_per_label=32)
    assert task.train_labels == ["x", "1", "1"] and task.test == ["b", "c"] and task.per_label == 32


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_classification_folder_without_a_part_is_refused(tmp_path, name):
    for kind in ("classification", "multilabel_classification"):
        splits(tmp_path, ROWS, ROWS)
        (tmp_path / f"{name}.jsonl").unlink()
        refused(kind, tmp_path, f"{name}.jsonl", "train and test")


def test_one_label_in_the_training_is_refused(tmp_path):
    splits(tmp_path, [ROWS[0], {"text": "z", "label": "x"}], ROWS)
    refused("classification", tmp_path, tmp_path, "one label only")


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a"},
        {"text": "a", "label": None},
        {"text": "a", "label": ["x"]},
        {"label": "x"},
        {"text": "a", "label": {}},
    ],
)
def test_a_text_without_its_one_label_is_refused(tmp_path, row):
    splits(tmp_path, ROWS, [*ROWS, row])
    refused("classification", tmp_path, "test.jsonl:4")


def test_a_part_without_texts_is_refused(tmp_path):
    for kind in ("classification", "multilabel_classification"):
        refused(kind, splits(tmp_path, ROWS, []), "test.jsonl")
        refused(kind, splits(tmp_path, [], ROWS), "train.jsonl")


def test_a_text_may_have_any_number_of_labels(tmp_path):
    rows = [{"text": "a", "label": ["x", 2]}, {"text": "b", "labels": []}, {"text": "c", "label": "y"}]
    task = read("multilabel_classification", splits(tmp_path, rows, rows))
    assert task.train_labels == task.test_labels == [["x", "2"], [], ["y"]]


def test_one_label_in_all_test_texts_is_nothing_to_tell_apart(tmp_path):
    rows = [{"text": "a", "label": ["x"]}, {"text": "b", "label": []}]
    refused("multilabel_classification", splits(tmp_path, rows, rows), tmp_path)


def test_labels_to_cluster_may_go_from_coarse_to_fine(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": ["y", "y1"]}, {"text": "c", "labels": ["x", 2]}]
    task = read("clustering", write_json(tmp_path / "c.jsonl", rows), fraction=0.5)
    # MTEB's mark of a level that is not there is one more label among words; among numbers it is left out.
    assert task.labels == [["x", "-1"], ["y", "y1"], ["x", "2"]] and task.fraction == 0.5
    numbers = [{"text": "a", "label": 1}, {"text": "b", "label": [2, 21]}]
    assert read("clustering", write_json(tmp_path / "n.jsonl", numbers)).labels == [["1"], ["2", "21"]]
    assert read("clustering", tmp_path / "c.jsonl").fraction is None


def test_one_label_to_cluster_is_refused(tmp_path):
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": ["x", "fine"]}, {"text": "c", "label": []}]
    path = write_json(tmp_path / "c.jsonl", rows)
    refused("clustering", path, path, "one label only")


def test_a_fraction_leaves_some_texts(tmp_path):
    path = write_json(tmp_path / "c.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    refused("clustering", path, "a fraction of 0.01 leaves none of 2 texts; raise it", fraction=0.01)


def test_sets_of_sentences_are_known_by_their_form(tmp_path):
    rows = [{"sentences": ["a", "b", ""], "labels": ["x", 2, "x"]}, {"sentences": ["c"], "labels": ["y"]}]
    path = write_json(tmp_path / "s.jsonl", rows)
    for fields in ({}, {"sets": True}):
        task = read("clustering", path, **fields)
        assert (
            task.type == "clustering"
            and task.sets == [["a", "b", ""], ["c"]]
            and task.labels == [["x", "2", "x"], ["y"]]
        )
        assert task.remarks == ("1 texts are empty; they are embedded as empty texts, as in MTEB",)
    refused("clustering", path, 'lines of {"text", "label"}, each a text', sets=False)
    for field, value in {
        "fraction": 0.5,
        "max_document_to_embed": 2,
        "max_depth": 1,
        "max_documents_per_cluster": 9,
    }.items():
        refused("clustering", path, f"{field} has no effect on sets", **{field: value})
    refused("clustering", path, "v_measure alone", main="ami")
    flat = write_json(tmp_path / "f.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    refused("clustering", flat, '{"sentences": [...], "labels": [...]}, each a set', sets=True)


@pytest.mark.parametrize(
    "row",
    [
        {"sentences": ["a"], "labels": []},
        {"sentences": ["a"], "labels": ["x", "y"]},
        {"sentences": "a", "labels": ["x"]},
        {"sentences": [3], "labels": ["x"]},
        {"sentences": ["a"], "labels": [None]},
        {"text": "a", "label": "x"},
    ],
)
def test_a_set_has_a_label_for_each_sentence(tmp_path, row):
    path = write_json(tmp_path / "s.jsonl", [{"sentences": ["a", "b"], "labels": ["x", "y"]}, row])
    refused("clustering", path, f"{path}:2")


# cross-validation and regression


def test_cross_validation_splits_one_file(tmp_path):
    rows = [{"text": f"t{i}", "label": "xy"[i % 2]} for i in range(6)]
    path = write_json(tmp_path / "all.jsonl", rows)
    task = read("classification", path, is_cross_validation=True, samples_per_label=2)
    assert task.cross_validated and task.test == [f"t{i}" for i in range(6)] and task.per_label == 2
    refused("classification", path, "train_path has no effect", is_cross_validation=True, train_path=path)
    refused("classification", path, "n_experiments has no effect", is_cross_validation=True, n_experiments=3)
    few = write_json(tmp_path / "few.jsonl", rows[:4])
    refused("classification", few, few, "five texts or more", is_cross_validation=True)
    one = write_json(tmp_path / "one.jsonl", [{**row, "label": "x"} for row in rows])
    refused("classification", one, one, "two labels or more", is_cross_validation=True)


@pytest.mark.parametrize("value", [None, "1.5", True, [1], float("nan"), float("inf"), 10**400])
def test_a_value_to_predict_is_a_number(tmp_path, value):
    good = [{"text": "a", "value": 1}, {"text": "b", "value": -2.5}]
    folder = splits(tmp_path, good, [*good, {"text": "c", "value": value}])
    refused("regression", folder, "test.jsonl:3", "'value' with a finite number")


def test_a_regression_is_fitted_on_no_more_than_mteb_fits(tmp_path):
    good = [{"text": "a", "value": 1}, {"text": "b", "value": 2}]
    task = read("regression", splits(tmp_path, good * 1024, good))
    assert len(task.train) == 2048 and task.test_values == [1, 2]
    refused("regression", splits(tmp_path, [*good * 1024, good[0]], good), "2,049 training texts", "no more than that")
    refused("regression", splits(tmp_path, good, good[:1]), "all test values are equal")


@pytest.mark.parametrize("ones", [(0, 1), (0.0, 1.0), (False, True), ("0", "1")])
def test_equal_numbers_are_one_label(tmp_path, ones):
    train = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    test = [{"text": "a", "label": ones[0]}, {"text": "b", "label": ones[1]}]
    task = read("classification", splits(tmp_path, train, test))
    assert task.train_labels == task.test_labels == ["0", "1"]


def test_a_label_that_is_no_number_is_refused(tmp_path):
    rows = [{"text": "a", "label": float("nan")}, {"text": "b", "label": "x"}]
    refused("classification", splits(tmp_path, rows, rows), "train.jsonl:1", "a label is nan")
