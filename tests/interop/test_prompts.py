"""Prompts: prefixes by key to our templates by name and back, under every key that MTEB asks for."""

import pytest

from embed.errors import DataError
from embed.interop import prompts
from embed.text import PROMPTS, apply_prompt

# What EmbeddingGemma's own folder holds.
EMBEDDING_GEMMA = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "BitextMining": "task: search result | query: ",
    "Clustering": "task: clustering | query: ",
    "Classification": "task: classification | query: ",
    "InstructionRetrieval": "task: code retrieval | query: ",
    "MultilabelClassification": "task: classification | query: ",
    "PairClassification": "task: sentence similarity | query: ",
    "Reranking": "task: search result | query: ",
    "Retrieval": "task: search result | query: ",
    "Retrieval-query": "task: search result | query: ",
    "Retrieval-document": "title: none | text: ",
    "STS": "task: sentence similarity | query: ",
    "Summarization": "task: summarization | query: ",
}
SEARCH, DOCUMENT = "task: search result | query: ", "title: none | text: "
EXPORTED = {
    "query": SEARCH,
    "Retrieval-query": SEARCH,
    "Reranking-query": SEARCH,
    "BitextMining": SEARCH,
    "document": DOCUMENT,
    "Retrieval-document": DOCUMENT,
    "Reranking-document": DOCUMENT,
    "InstructionRetrieval-document": DOCUMENT,
    "InstructionReranking-document": DOCUMENT,
    "question answering": "task: question answering | query: ",
    "fact checking": "task: fact checking | query: ",
    "classification": "task: classification | query: ",
    "Classification": "task: classification | query: ",
    "MultilabelClassification": "task: classification | query: ",
    "clustering": "task: clustering | query: ",
    "Clustering": "task: clustering | query: ",
    "sentence similarity": "task: sentence similarity | query: ",
    "STS": "task: sentence similarity | query: ",
    "PairClassification": "task: sentence similarity | query: ",
    "code retrieval": "task: code retrieval | query: ",
    "InstructionRetrieval-query": "task: code retrieval | query: ",
    "InstructionReranking-query": "task: code retrieval | query: ",
    "summarization": "task: summarization | query: ",
    "Summarization": "task: summarization | query: ",
}


def test_our_prompts_are_written_under_every_key():
    assert prompts.exported(PROMPTS) == EXPORTED
    assert "Reranking" not in EXPORTED and "Retrieval" not in EXPORTED and "none" not in EXPORTED


def test_our_prompts_come_back_as_they_were():
    assert prompts.imported(prompts.exported(PROMPTS)) == PROMPTS
    assert list(prompts.imported(prompts.exported(PROMPTS))) == list(PROMPTS)


def test_embedding_gemma_is_read_as_our_prompts():
    found = prompts.imported(EMBEDDING_GEMMA)
    # Its folder has no prompt for these two, which are searches.
    searches = {"question answering": f"{SEARCH}{{content}}", "fact checking": f"{SEARCH}{{content}}"}
    # Keys that we do not write of our own are kept under their names, so that a user's prompt_name goes on working.
    kept = {"InstructionRetrieval": PROMPTS["code retrieval"]}
    assert found == {**PROMPTS, **searches, **kept}
    assert not {"Retrieval", "Reranking", "Retrieval-query", "STS"} & set(found)


@pytest.mark.parametrize(
    "given",
    [
        {},
        EMBEDDING_GEMMA,
        {"query": "query: ", "passage": "passage: "},
        {"query": "Instruct: find\nQuery:", "document": ""},
        {"query": "q: ", "Retrieval": "r: ", "odd name": "odd! "},
        {"Classification": "c: ", "STS": None},
        {"corpus": "p: "},
    ],
    ids=lambda given: ",".join(given)[:30] or "nothing",
)
def test_reading_and_writing_settle_at_once(given):
    """What is read from an export is what was read from the first folder."""
    first = prompts.imported(given)
    assert prompts.imported(prompts.exported(first)) == first


def test_a_name_the_folder_does_not_serve_adds_nothing():
    found = prompts.imported({"query": "q: ", "document": "d: "})
    assert found["query"] == found["question answering"] == found["fact checking"] == "q: {content}"
    assert found["document"] == "d: {content}"
    for name in ("classification", "clustering", "sentence similarity", "code retrieval", "summarization", "none"):
        assert found[name] == "{content}"
    assert set(found) == set(PROMPTS)


def test_names_of_other_folders_are_understood():
    for key, name in (("passage", "document"), ("corpus", "document"), ("Retrieval", "query"), ("STS", None)):
        found = prompts.imported({key: "x: "})
        assert found[name or "sentence similarity"] == "x: {content}"
        assert (key in found) == (key in ("passage", "corpus"))


def test_the_side_goes_before_the_bare_key():
    found = prompts.imported({"Retrieval": "wrong", "Retrieval-query": "right", "query": "first"})
    assert found["query"] == "first{content}"
    assert prompts.imported({"Retrieval": "wrong", "Retrieval-query": "right"})["query"] == "right{content}"


def test_odd_names_are_kept_and_repetitions_dropped():
    found = prompts.imported({"query": "q: ", "Retrieval-query": "q: ", "mine": "m: ", "STS": "s: "})
    assert found["mine"] == "m: {content}" and found["sentence similarity"] == "s: {content}"
    assert set(found) == {*PROMPTS, "mine"}


def test_a_model_without_prompts_has_two_empty_ones():
    assert prompts.exported(dict.fromkeys(PROMPTS, "{content}")) == {"query": "", "document": ""}


def test_none_is_always_the_text_itself():
    assert prompts.imported({"none": ""})["none"] == "{content}"
    with pytest.raises(DataError, match="the prompt 'none' is 'x: ', and here 'none' is the text alone"):
        prompts.imported({"none": "x: "})
    assert "none" not in prompts.exported({"query": "q: {content}", "none": "x: {content}"})


def test_a_title_is_none_in_a_prefix():
    assert prompts.to_prefix("document", PROMPTS["document"]) == "title: none | text: "
    assert prompts.to_template("title: none | text: ") == PROMPTS["document"]
    assert prompts.to_template("text: ") == "text: {content}"


@pytest.mark.parametrize("name", [n for n in PROMPTS if n != "none"])
def test_a_prefix_makes_the_same_text_as_the_template(name):
    assert prompts.to_prefix(name, PROMPTS[name]) + "a text" == apply_prompt(PROMPTS[name], "a text")


def test_a_prompt_that_goes_on_behind_the_text_is_refused():
    with pytest.raises(DataError) as e:
        prompts.exported({"query": "{content} is what?"})
    assert "prompt 'query'" in str(e.value) and "export with --format=stablehlo" in str(e.value)
    assert prompts.to_prefix("query", "find: {content} ") == "find: "  # white space at the end is cut from texts anyway


def test_what_was_the_querys_prompt_goes_with_it():
    plain = prompts.imported({})
    given = prompts.overridden(plain, {"query": "query: {content}", "document": "passage: {content}"})
    same = prompts.imported({"query": "query: ", "document": "passage: "})
    assert given == same and given["question answering"] == given["fact checking"] == "query: {content}"
    both = prompts.overridden(plain, {"query": "q: {content}", "fact checking": "f: {content}"})
    assert (both["question answering"], both["fact checking"]) == ("q: {content}", "f: {content}")
    apart = prompts.imported({"query": "q: ", "question answering": "a: "})
    assert prompts.overridden(apart, {"query": "other: {content}"})["question answering"] == "a: {content}"
