"""Suites: the shared files are read whole, wrong ones are refused before anything is embedded."""

import csv
import gzip
import json

import image_files
import pytest

from embed.errors import DataError
from embed.evaluation import suites


def write_lines(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def suite(tmp_path):
    """A suite of one retrieval and one sts task with paths relative to it."""
    foxes = tmp_path / "data" / "foxes"
    write_lines(foxes / "queries.jsonl", '{"id": "q1", "text": "red fox"}')
    write_lines(foxes / "corpus.jsonl", '{"id": "d1", "text": "A red fox."}', '{"id": "d2", "text": "The sky."}')
    write_lines(foxes / "qrels.tsv", "query-id\tcorpus-id\tscore", "q1\td1\t1")
    write_lines(tmp_path / "data" / "pairs.tsv", "sentence1\tsentence2\tscore", "a\tb\t1", "c\td\t2")
    tasks = [
        {"name": "foxes", "type": "retrieval", "path": "../data/foxes", "languages": ["en"]},
        {"name": "pairs", "type": "sts", "path": "../data/pairs.tsv"},
    ]
    (tmp_path / "suites").mkdir()
    path = tmp_path / "suites" / "s.json"
    path.write_text(json.dumps({"name": "mine", "tasks": tasks}))
    return path


def changed(suite, change):
    """Writes the suite after `change` of its content, which it returns or edits."""
    content = json.loads(suite.read_text())
    content = change(content) or content
    suite.write_text(json.dumps(content))
    return suite


def refused(suite, *parts, only=None):
    with pytest.raises(DataError) as caught:
        suites.read_suite(suite, only)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert str(part) in str(caught.value)


# reading


def test_a_suite_gives_its_tasks_with_their_data(suite):
    found = suites.read_suite(suite)
    foxes, pairs = found.tasks
    assert found.name == "mine" and found.groups == {"foxes": "retrieval", "pairs": "sts"}
    assert (foxes.name, foxes.type, foxes.prompt, foxes.main) == ("foxes", "retrieval", "query", "ndcg_at_10")
    assert foxes.queries == ["red fox"] and list(foxes.languages) == ["en"]
    assert (pairs.name, pairs.type, pairs.prompt, pairs.main) == (
        "pairs",
        "sts",
        "sentence similarity",
        "cosine_spearman",
    )
    assert pairs.gold == [1.0, 2.0] and list(pairs.languages) == []


def test_a_suite_is_called_by_its_file_when_it_has_no_name(suite):
    assert suites.read_suite(changed(suite, lambda c: {"tasks": c["tasks"]})).name == "s"


def test_only_picks_tasks_and_leaves_others_unread(suite):
    def add(content):
        content["tasks"] += [
            {"name": "odd", "type": "poetry", "path": "x"},
            {"name": "gone", "type": "sts", "path": "../data/gone.tsv"},
        ]

    found = suites.read_suite(changed(suite, add), only=["pairs"])
    assert [t.name for t in found.tasks] == ["pairs"] and found.groups == {"pairs": "sts"}


def test_a_prompt_and_a_score_in_the_suite_are_used(suite):
    changed(suite, lambda c: c["tasks"][0].update(prompt="question answering", main="recall_at_100"))
    task = suites.read_suite(suite).tasks[0]
    assert task.prompt == "question answering" and task.main == "recall_at_100"


def test_a_task_of_mteb_may_be_named(suite):
    assert suites.read_suite(suite).mteb_tasks == {}
    changed(suite, lambda c: c["tasks"][1].update(mteb_task="STSBenchmark"))
    assert suites.read_suite(suite).mteb_tasks == {"pairs": "STSBenchmark"}
    assert suites.read_suite(suite, ["foxes"]).mteb_tasks == {}


def test_retrieval_with_the_prompt_for_code_is_a_group_of_its_own(suite):
    changed(suite, lambda c: [t.update(prompt="code retrieval") for t in c["tasks"]] and None)
    found = suites.read_suite(suite)
    assert found.groups == {"foxes": "code search", "pairs": "sts"}
    assert found.tasks[0].type == "retrieval"
    assert suites.group({"type": "retrieval", "prompt": "query"}) == suites.group({"type": "retrieval"}) == "retrieval"


@pytest.mark.slow
def test_the_shared_suite_is_read_whole(shared_data):
    path = shared_data / "suites" / "text-small.json"
    found = suites.read_suite(path)
    entries = json.loads(path.read_text())["tasks"]
    assert found.name == "shared-text-small" and [t.name for t in found.tasks] == [e["name"] for e in entries]
    by_name = {t.name: t for t in found.tasks}
    assert found.groups["nl2bash-dev"] == "code search" and by_name["nl2bash-dev"].prompt == "code retrieval"
    assert set(found.groups.values()) == {
        "retrieval", "code search", "reranking", "sts", "pair_classification", "bitext", "classification", "clustering"
    }  # fmt: skip

    def rows(place):
        with gzip.open(place, "rt", encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    folder, medquad = shared_data / "retrieval" / "medquad", by_name["medquad"]
    queries, corpus = rows(folder / "queries.jsonl.gz"), rows(folder / "corpus.jsonl.gz")
    assert medquad.query_ids == [q["id"] for q in queries] and medquad.corpus_ids == [d["id"] for d in corpus]
    assert medquad.queries[0] == queries[0]["text"].strip()
    assert len(medquad.corpus) == len(corpus) == len(medquad.titles)
    with gzip.open(folder / "qrels.tsv.gz", "rt", encoding="utf-8") as f:
        judged = list(csv.DictReader(f, delimiter="\t"))
    assert sum(map(len, medquad.qrels.values())) == len(judged)
    assert all(medquad.qrels[j["query-id"]][j["corpus-id"]] == float(j["score"]) for j in judged)
    with gzip.open(shared_data / "sts" / "stsb-en-dev.tsv.gz", "rt", encoding="utf-8") as f:
        pairs = list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    sts = by_name["stsb-en-dev"]
    assert sts.gold == [float(p["score"]) for p in pairs] and sts.first[5] == pairs[5]["sentence1"].strip()
    reranking = rows(shared_data / "reranking" / "medquad-focus.jsonl.gz")
    assert [sum(r) for r in by_name["medquad-focus"].relevant] == [len(r["positives"]) for r in reranking]
    assert len(by_name["hwu64"].train) == len(rows(shared_data / "classification" / "hwu64" / "train.jsonl.gz"))


def test_the_shared_suite_of_images(shared_data):
    suite = suites.read_suite(shared_data / "suites" / "image.json")
    by_name = {task.name: task for task in suite.tasks}
    assert len(by_name) == 7 and set(suite.groups.values()) == {
        "image_retrieval", "image_text_retrieval", "image_classification", "pair_classification",
    }  # fmt: skip
    emoji = by_name["emoji-noto-dev-t2i"]
    assert len(emoji.subsets) == 18 and all(len(task.corpus) == 192 for task in emoji.subsets.values())
    signs, drawings = by_name["sign-digits"], by_name["omniglot-small1"]
    assert len(signs.train) + len(signs.test) == 2062 and len(drawings.train) == len(drawings.test) == 1360
    assert len(by_name["nlvr-dev"].first) == 846


# digests


def test_the_digest_is_that_of_the_content(suite, tmp_path):
    digest = suites.read_suite(suite).digest
    assert digest == suites.read_suite(suite).digest
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("suites", "data"):
        (tmp_path / name).rename(moved / name)
    assert suites.read_suite(moved / "suites" / "s.json").digest == digest


@pytest.mark.parametrize("name", ["foxes/corpus.jsonl", "foxes/queries.jsonl", "foxes/qrels.tsv", "pairs.tsv"])
def test_the_digest_changes_with_every_file(suite, tmp_path, name):
    before = suites.read_suite(suite).digest
    path = tmp_path / "data" / name
    path.write_text(path.read_text().replace("red", "green").replace("\t1", "\t2"))
    assert suites.read_suite(suite).digest != before


def test_the_digest_changes_with_images_that_lie_elsewhere(tmp_path):
    folder = image_files.write("image_clustering", tmp_path / "data" / "t")
    (folder / "images").rename(tmp_path / "pictures")
    rows = (folder / "test.jsonl").read_text().replace("images/", "../../pictures/")
    (folder / "test.jsonl").write_text(rows)
    (tmp_path / "s.json").write_text(
        json.dumps({"tasks": [{"name": "t", "type": "image_clustering", "path": "data/t"}]})
    )
    before = suites.read_suite(tmp_path / "s.json").digest
    picture = sorted((tmp_path / "pictures").iterdir())[0]
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert suites.read_suite(tmp_path / "s.json").digest != before


def test_the_digest_changes_with_the_tasks(suite):
    before = suites.read_suite(suite).digest
    assert suites.read_suite(suite, ["pairs"]).digest != before
    changed(suite, lambda c: c["tasks"][0].update(prompt="none"))
    assert suites.read_suite(suite).digest != before


def test_the_digest_changes_with_the_corpus_and_the_name_of_a_language(tmp_path):
    write_lines(tmp_path / "questions" / "as.jsonl", '{"id": "p1", "question": "a"}')
    write_lines(tmp_path / "index.jsonl", '{"id": "p1", "text": "x"}')
    path = tmp_path / "s.json"
    task = {"name": "m", "type": "xtreme_up", "path": "questions", "corpus_path": "index.jsonl"}
    path.write_text(json.dumps({"tasks": [task]}))
    before = suites.read_suite(path).digest
    (tmp_path / "questions" / "as.jsonl").rename(tmp_path / "questions" / "bho.jsonl")  # scores go by the file's name
    renamed = suites.read_suite(path).digest
    write_lines(tmp_path / "index.jsonl", '{"id": "p1", "text": "y"}')
    assert len({before, renamed, suites.read_suite(path).digest}) == 3


# refusals


def test_a_missing_suite_is_named(tmp_path):
    refused(tmp_path / "none.json", tmp_path / "none.json", "no such file")


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_a_suite_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    refused(tmp_path / "s.json", "s.json")


@pytest.mark.parametrize("content", ["{}", '{"name": "x"}', '{"tasks": []}'])
def test_a_suite_without_tasks_is_refused(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    refused(tmp_path / "s.json", "s.json", "without tasks")


@pytest.mark.parametrize("tasks", [3, "foxes", {"name": "foxes"}, ["foxes"], [None], [["name"]]])
def test_tasks_that_are_no_list_of_objects_are_refused(tmp_path, tasks):
    (tmp_path / "s.json").write_text(json.dumps({"tasks": tasks}))
    refused(tmp_path / "s.json", "s.json")


def test_an_unknown_type_is_refused_with_a_suggestion(suite):
    changed(suite, lambda c: c["tasks"][0].update(type="retreival"))
    refused(suite, suite, "'foxes'", "'retreival'", "did you mean 'retrieval'?", "--tasks")


def test_an_unknown_field_is_refused_with_a_suggestion(suite):
    changed(suite, lambda c: c["tasks"][1].update(promt="query"))
    refused(suite, suite, "'pairs'", "'promt'", "did you mean 'prompt'?")
    refused(suite, "'promt'", only=["foxes"])  # whichever tasks are run


@pytest.mark.parametrize(
    "field, kind", [("path", "sts"), ("train_path", "classification"), ("corpus_path", "xtreme_up")]
)
def test_a_missing_file_is_named(suite, field, kind):
    changed(suite, lambda c: c["tasks"][1].update({"type": kind, field: "gone.tsv"}))
    refused(suite, suite, "'pairs' needs", suite.parent / "gone.tsv", "not there")


def test_an_unknown_task_is_refused_with_a_suggestion(suite):
    refused(suite, "no task 'foxs'; did you mean 'foxes'", only=["pairs", "foxs"])
    refused(suite, "known: foxes, pairs", only=["zzz"])


@pytest.mark.parametrize("field", ["name", "path", "type"])
def test_a_task_without_a_name_type_or_path_is_refused(suite, field):
    changed(suite, lambda c: c["tasks"][1].pop(field) and None)
    for only in (None, ["foxes"]):
        refused(suite, suite, field, only=only)


@pytest.mark.parametrize(
    "field, value",
    [("name", 3), ("type", ["sts"]), ("path", 3), ("languages", "en"), ("prompt", 3), ("main", ["f1"])],
)
def test_fields_of_the_wrong_kind_are_refused(suite, field, value):
    changed(suite, lambda c: c["tasks"][1].update({field: value}))
    refused(suite, suite, field)


VALUES = {
    "ignore_identical_ids": ([True, False], [1, "true", None]),
    "skip_first_result": ([True, False], [0, "false"]),
    "k_values": ([[1], [1, 10, 1000]], [[], 10, [0], [10, 1], [1, 1], [1001], [1.0], ["1"], [True], None]),
    "samples_per_label": ([1, 32], [0, -1, 2.5, "8", True, 10**9, None]),
    "n_experiments": ([1, 10], [0, 1001, 2.5]),
    "is_cross_validation": ([True, False], ["yes", 1]),
    "fraction": ([0.04, 1, 1.0], [0, -0.5, 1.5, "half", True, None]),
    "max_document_to_embed": ([1, 2048], [0, 0.5, "all"]),
    "max_documents_per_cluster": ([1, 16384], [0, 10**9]),
    "max_depth": ([1, 5], [0, 1.5]),
    "sets": ([True, False], ["no", 0]),
    "languages": ([[], ["de"]], ["de", [3], [""]]),
    "prompt": (["query"], ["", " ", 3, "a\u0000b"]),
    "mteb_task": (["STSBenchmark"], ["", 3, None]),
}


@pytest.mark.parametrize("field", VALUES)
def test_values_have_a_type_and_a_range(suite, field):
    right, wrong = VALUES[field]
    for value in wrong:
        changed(suite, lambda c, value=value: c["tasks"][0].update({field: value}))
        refused(suite, suite, "task 'foxes'", repr(field), "expected")
    for value in right:
        assert suites._FIELDS[field].kind is list or suites._FIELDS[field].expected(value) is None


def test_a_lone_surrogate_is_refused_with_its_path(suite):
    changed(suite, lambda c: c["tasks"][0].update(prompt="\ud800"))
    refused(suite, suite, "tasks[0].prompt holds a lone surrogate")


def test_every_field_of_the_table_is_tried_and_documented():
    always = {"name", "type", "path", "main", "train_path", "corpus_path"}
    assert set(VALUES) | always == set(suites._FIELDS)
    for field in suites._FIELDS:
        assert f"`{field}`" in suites.__doc__


def test_a_field_without_effect_is_refused(suite):
    changed(suite, lambda c: c["tasks"][1].update(ignore_identical_ids=True))
    refused(suite, suite, "'pairs'", "ignore_identical_ids has no effect on sts, only on retrieval", "leave it out")


def test_two_ways_to_take_fewer_texts_are_refused(suite):
    changed(suite, lambda c: c["tasks"][1].update(fraction=0.5, max_document_to_embed=3))
    refused(suite, suite, "'pairs'", "give one of them")


@pytest.mark.parametrize(
    "change, part", [({"name": 3}, "'name'"), ({"nam": "x"}, "no field 'nam'; did you mean 'name'")]
)
def test_a_field_of_the_suite_that_is_wrong_is_refused(suite, change, part):
    refused(changed(suite, lambda c: c | change), suite, part)


# rules of MTEB


def test_rules_of_mteb_are_set_where_the_suite_names_its_task(suite):
    changed(suite, lambda c: c["tasks"][0].update(mteb_task="ArguAna"))
    before = suites.read_suite(suite)
    assert before.tasks[0].rules.ignore_identical_ids and before.tasks[0].remarks == ()
    changed(suite, lambda c: c["tasks"][0].update(ignore_identical_ids=False))
    found = suites.read_suite(suite)
    assert not found.tasks[0].rules.ignore_identical_ids
    assert found.tasks[0].remarks == ("MTEB's ArguAna has ignore_identical_ids = true, the suite false",)
    assert found.digest != before.digest


def test_two_tasks_of_one_name_are_refused(suite):
    changed(suite, lambda c: c["tasks"][1].update(name="foxes"))
    refused(suite, suite, "'foxes'", "its own name")


def test_every_value_replaced_by_any_other_is_refused_in_one_line_or_read(suite):
    content = json.loads(suite.read_text())
    tried = 0
    for index, entry in enumerate(content["tasks"]):
        for field in suites._FIELDS:
            for value in (
                None,
                0,
                -1,
                3,
                2.5,
                1e308,
                True,
                "x",
                "",
                "../data",
                [],
                ["a"],
                [1],
                {},
                {"a": 1},
                "sts",
                "ArguAna",
            ):
                tasks = [dict(t) for t in content["tasks"]]
                tasks[index] = {**entry, field: value}
                suite.write_text(json.dumps({"tasks": tasks}))
                tried += 1
                try:
                    suites.read_suite(suite)
                except DataError as e:
                    assert "\n" not in str(e)
    assert tried > 500


CELLS = (
    "", "\ufeff", "q1\td1", "q1 0 d1 1", '{"id": "q1"}', '{"id": null, "text": "a"}', '{"id": {}, "text": []}', "[]", "null",
    "NaN", '{"id": "q1", "text": "a", "title": {}}', "\x00", '{"text": "a", "label": [[]]}', "a\tb\tc\td\te", '"',
    "1e999\t1e999\t1e999",
)  # fmt: skip


@pytest.mark.parametrize("name", ["foxes/corpus.jsonl", "foxes/queries.jsonl", "foxes/qrels.tsv", "pairs.tsv"])
def test_every_line_replaced_by_another_is_refused_in_one_line_or_read(suite, tmp_path, name):
    path = tmp_path / "data" / name
    lines = path.read_text().splitlines()
    for number in range(len(lines)):
        for cells in CELLS:
            path.write_text("\n".join([*lines[:number], cells, *lines[number + 1 :]]) + "\n")
            try:
                suites.read_suite(suite)
            except DataError as e:
                assert "\n" not in str(e) and "\x00" not in str(e)
