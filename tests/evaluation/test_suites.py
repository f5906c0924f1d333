"""Suites: the shared files are read whole, wrong ones are refused with file, line and advice."""

import csv
import gzip
import json

import pytest

from embed.errors import DataError
from embed.evaluation import suites

QUERIES = [{"id": "q1", "text": "red fox"}, {"id": "q2", "text": "blue sky"}, {"_id": 3, "text": "grass"}]
CORPUS = [
    {"id": "d1", "title": "Fox", "text": "A red fox."},
    {"id": "d2", "text": "The sky."},
    {"_id": 7, "text": "Grass."},
]
QRELS = [("q1", "d1", "2"), ("q2", "d2", "1"), ("3", "7", "1"), ("q1", "d2", "0")]
STS = [("a cat", "a feline", "4.5"), ("a cat", "a car", "0"), ("one", "two", "1.25")]


def write_lines(path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{line}\n" for line in lines)
    with gzip.open(path, "wt") if path.suffix == ".gz" else open(path, "w") as f:
        f.write(text)


def write_retrieval(folder, queries=QUERIES, corpus=CORPUS, qrels=QRELS, suffix="", qrels_name="qrels.tsv") -> None:
    write_lines(folder / f"queries.jsonl{suffix}", map(json.dumps, queries))
    write_lines(folder / f"corpus.jsonl{suffix}", map(json.dumps, corpus))
    write_lines(folder / f"{qrels_name}{suffix}", ["query-id\tcorpus-id\tscore", *map("\t".join, qrels)])


def write_sts(path, rows=STS, header="sentence1\tsentence2\tscore") -> None:
    write_lines(path, [header, *map("\t".join, rows)])


def write_suite(path, *tasks, **fields):
    path.write_text(json.dumps({"name": "mine", "tasks": list(tasks), **fields}))
    return path


@pytest.fixture
def suite(tmp_path):
    """A suite of one retrieval and one sts task with paths relative to it."""
    write_retrieval(tmp_path / "data" / "foxes")
    write_sts(tmp_path / "data" / "pairs.tsv.gz")
    (tmp_path / "suites").mkdir()
    return write_suite(
        tmp_path / "suites" / "s.json",
        {"name": "foxes", "type": "retrieval", "path": "../data/foxes"},
        {"name": "pairs", "type": "sts", "path": "../data/pairs.tsv.gz"},
    )


# reading


def test_a_suite_gives_its_tasks_with_their_data(suite):
    name, (foxes, pairs) = suites.read_suite(suite)
    assert name == "mine"
    assert (foxes.name, foxes.type, foxes.prompt) == ("foxes", "retrieval", "query")
    assert foxes.query_ids == ["q1", "q2", "3"] and foxes.queries == ["red fox", "blue sky", "grass"]
    assert foxes.corpus_ids == ["d1", "d2", "7"] and foxes.corpus == ["A red fox.", "The sky.", "Grass."]
    assert foxes.titles == ["Fox", "", ""]
    assert foxes.qrels == {"q1": {"d1": 2.0, "d2": 0.0}, "q2": {"d2": 1.0}, "3": {"7": 1.0}}
    assert (pairs.name, pairs.type, pairs.prompt) == ("pairs", "sts", "sentence similarity")
    assert pairs.first == ["a cat", "a cat", "one"] and pairs.second == ["a feline", "a car", "two"]
    assert pairs.gold == [4.5, 0.0, 1.25]


def test_a_suite_is_called_by_its_file_when_it_has_no_name(suite):
    content = json.loads(suite.read_text())
    del content["name"]
    suite.write_text(json.dumps(content))
    assert suites.read_suite(suite)[0] == "s"


def test_only_picks_tasks_and_leaves_others_unread(tmp_path, suite):
    content = json.loads(suite.read_text())
    content["tasks"] += [
        {"name": "odd", "type": "poetry", "path": "x"},
        {"name": "gone", "type": "sts", "path": "../data/gone.tsv"},
    ]
    suite.write_text(json.dumps(content))
    _, tasks = suites.read_suite(suite, only=["pairs"])
    assert [t.name for t in tasks] == ["pairs"]


def test_a_prompt_in_the_suite_is_used(suite):
    content = json.loads(suite.read_text())
    content["tasks"][0]["prompt"] = "code retrieval"
    suite.write_text(json.dumps(content))
    assert suites.read_suite(suite)[1][0].prompt == "code retrieval"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("qrels_name", ["qrels.tsv", "qrels/test.tsv", "qrels/dev.tsv"])
def test_retrieval_files_may_be_packed_and_named_as_in_beir(tmp_path, suffix, qrels_name):
    write_retrieval(tmp_path, suffix=suffix, qrels_name=qrels_name)
    task = suites.read_retrieval("x", tmp_path, "query")
    assert len(task.queries) == 3 and task.qrels["3"] == {"7": 1.0}


def test_the_shared_suite_is_read_whole(shared_data):
    suite = shared_data / "suites" / "text-small.json"
    name, (medquad, sts) = suites.read_suite(suite, only=["medquad", "stsb-en-dev"])
    assert name == "shared-text-small"

    def rows(path):
        with gzip.open(path, "rt", encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    folder = shared_data / "retrieval" / "medquad"
    queries, corpus = rows(folder / "queries.jsonl.gz"), rows(folder / "corpus.jsonl.gz")
    assert medquad.query_ids == [q["id"] for q in queries] and medquad.corpus_ids == [d["id"] for d in corpus]
    assert medquad.queries[0] == queries[0]["text"].strip() and len(medquad.corpus) == len(corpus) == len(
        medquad.titles
    )
    with gzip.open(folder / "qrels.tsv.gz", "rt", encoding="utf-8") as f:
        judged = list(csv.DictReader(f, delimiter="\t"))
    assert sum(map(len, medquad.qrels.values())) == len(judged)
    assert all(medquad.qrels[j["query-id"]][j["corpus-id"]] == float(j["score"]) for j in judged)
    with gzip.open(shared_data / "sts" / "stsb-en-dev.tsv.gz", "rt", encoding="utf-8") as f:
        pairs = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert sts.gold == [float(p["score"]) for p in pairs] and sts.first[5] == pairs[5]["sentence1"].strip()
    assert sts.prompt == "sentence similarity" and medquad.prompt == "query"


def test_code_search_in_the_shared_suite_has_its_own_prompt(shared_data):
    _, (task,) = suites.read_suite(shared_data / "suites" / "text-small.json", only=["nl2bash-dev"])
    assert task.prompt == "code retrieval" and len(task.queries) > 100


def test_types_of_the_shared_suite_that_are_not_supported_name_those_that_are(shared_data):
    with pytest.raises(DataError, match="supported: retrieval, sts") as caught:
        suites.read_suite(shared_data / "suites" / "text-small.json", only=["medquad-focus"])
    assert "'reranking'" in str(caught.value) and "--tasks" in str(caught.value)


# refusals


def test_a_missing_suite_is_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        suites.read_suite(tmp_path / "none.json")


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_a_suite_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(DataError, match="s.json"):
        suites.read_suite(tmp_path / "s.json")


@pytest.mark.parametrize("content", ["{}", '{"name": "x"}', '{"tasks": []}'])
def test_a_suite_without_tasks_is_refused(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(DataError, match="without tasks"):
        suites.read_suite(tmp_path / "s.json")


def test_an_unknown_type_is_refused_with_the_known_ones(tmp_path):
    suite = write_suite(tmp_path / "s.json", {"name": "a", "type": "retreival", "path": "x"})
    with pytest.raises(DataError, match="'retreival'; supported: retrieval, sts"):
        suites.read_suite(suite)


def test_a_missing_file_is_named(tmp_path):
    suite = write_suite(tmp_path / "s.json", {"name": "a", "type": "sts", "path": "gone.tsv"})
    with pytest.raises(DataError, match="'a' needs") as caught:
        suites.read_suite(suite)
    assert str(tmp_path / "gone.tsv") in str(caught.value)


def test_an_unknown_task_is_refused_with_a_suggestion(suite):
    with pytest.raises(DataError, match="no task 'foxs'; did you mean 'foxes'"):
        suites.read_suite(suite, only=["pairs", "foxs"])
    with pytest.raises(DataError, match="known: foxes, pairs"):
        suites.read_suite(suite, only=["zzz"])


@pytest.mark.parametrize("field", ["name", "path"])
def test_a_task_without_name_or_path_is_refused(suite, field):
    content = json.loads(suite.read_text())
    del content["tasks"][1][field]
    suite.write_text(json.dumps(content))
    for only in (None, ["foxes"]) if field == "name" else (None,):
        with pytest.raises(DataError, match=field):
            suites.read_suite(suite, only)


def test_two_tasks_of_one_name_are_refused(suite):
    content = json.loads(suite.read_text())
    content["tasks"][1]["name"] = "foxes"
    suite.write_text(json.dumps(content))
    with pytest.raises(DataError, match="foxes"):
        suites.read_suite(suite)


@pytest.mark.parametrize("part", ["queries", "corpus"])
def test_ids_must_be_unique(tmp_path, part):
    rows = {"queries": QUERIES, "corpus": CORPUS}
    rows[part] = [*rows[part], {"id": 3 if part == "queries" else "7", "text": "again"}]
    write_retrieval(tmp_path, **rows)
    with pytest.raises(DataError, match="stands twice") as caught:
        suites.read_retrieval("x", tmp_path, "query")
    assert f"{part}.jsonl:4" in str(caught.value)


@pytest.mark.parametrize("kind, row", [("query", ("q9", "d1", "1")), ("document", ("q1", "d9", "1"))])
def test_judgements_of_unknown_ids_are_refused(tmp_path, kind, row):
    write_retrieval(tmp_path, qrels=[*QRELS, row])
    unknown = {"query": row[0], "document": row[1]}[kind]
    with pytest.raises(DataError, match=f"{kind} '{unknown}', which is not there") as caught:
        suites.read_retrieval("x", tmp_path, "query")
    assert "qrels.tsv:6" in str(caught.value)


@pytest.mark.parametrize("score", ["one", "", "nan"])
def test_a_judgement_that_is_no_number_is_refused(tmp_path, score):
    write_retrieval(tmp_path, qrels=[*QRELS, ("q2", "d1", score)])
    with pytest.raises(DataError, match="qrels.tsv:6"):
        suites.read_retrieval("x", tmp_path, "query")


def test_judgements_without_a_score_column_are_refused(tmp_path):
    write_retrieval(tmp_path)
    write_lines(tmp_path / "qrels.tsv", ["query-id\tcorpus-id", "q1\td1"])
    with pytest.raises(DataError, match="qrels.tsv:2"):
        suites.read_retrieval("x", tmp_path, "query")


@pytest.mark.parametrize("name", ["queries.jsonl", "corpus.jsonl", "qrels.tsv"])
def test_a_retrieval_folder_without_a_part_is_refused(tmp_path, name):
    write_retrieval(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=name):
        suites.read_retrieval("x", tmp_path, "query")


@pytest.mark.parametrize("row", [{"id": "d9"}, {"id": "d9", "text": "  "}, {"text": "x"}, {"id": "d9", "text": 3}])
def test_a_document_without_id_or_text_is_refused(tmp_path, row):
    write_retrieval(tmp_path, corpus=[*CORPUS, row])
    with pytest.raises(DataError, match="corpus.jsonl:4"):
        suites.read_retrieval("x", tmp_path, "query")


@pytest.mark.parametrize("score", ["high", "", "nan"])
def test_an_sts_score_that_is_no_number_is_refused(tmp_path, score):
    write_sts(tmp_path / "p.tsv", [*STS, ("a", "b", score)])
    with pytest.raises(DataError, match=r"p\.tsv:5.*number in score"):
        suites.read_sts("x", tmp_path / "p.tsv", "query")


def test_sts_columns_must_be_there(tmp_path):
    write_sts(tmp_path / "p.tsv", header="sentence1\tsentence2\tgold")
    with pytest.raises(DataError, match=r"p\.tsv:2.*columns sentence1, sentence2"):
        suites.read_sts("x", tmp_path / "p.tsv", "query")
    write_sts(tmp_path / "p.tsv", header="first\tsecond\tscore")
    with pytest.raises(DataError, match="sentence1"):
        suites.read_sts("x", tmp_path / "p.tsv", "query")


def test_an_sts_file_without_pairs_is_refused(tmp_path):
    write_sts(tmp_path / "p.tsv", [])
    with pytest.raises(DataError, match="no pairs"):
        suites.read_sts("x", tmp_path / "p.tsv", "query")


def test_an_empty_sentence_is_refused(tmp_path):
    write_sts(tmp_path / "p.tsv", [*STS, ("a", " ", "1")])
    with pytest.raises(DataError, match=r"p\.tsv:5.*sentence2"):
        suites.read_sts("x", tmp_path / "p.tsv", "query")
