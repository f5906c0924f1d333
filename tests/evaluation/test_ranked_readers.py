"""Files of tasks that rank documents: what is read of them; wrong ones are refused with file, line and advice."""

import pytest
from task_files import (
    CORPUS,
    PACKED,
    QRELS,
    QUERIES,
    read,
    refused,
    write_instructions,
    write_json,
    write_lines,
    write_retrieval,
    write_tsv,
)

from embed.evaluation import ranking

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
def test_passages_must_be_named(tmp_path, kind):
    path = xor(tmp_path, QUESTION)[0] if kind == "xor_retrieve" else xtreme(tmp_path, **{"as": []})[0]
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
