"""Queries and labelled texts that a model writes: by an asker of known answers, what is asked, kept and told in the rows."""

import asyncio
import collections
import types

import pytest

from embed.curation import synthesis
from embed.curation.asking import Rejected
from embed.curation.prompt_templates import PromptTemplate
from embed.curation.synthesis import Draw, Labelled, Queries
from embed.sources.input_texts import Text

WORDS = {
    name: PromptTemplate(name, "Do.", " ".join(f"${f}" for f in sorted(fields)))
    for name, fields in synthesis.FIELDS.items()
}


class Answers:
    """An asker that answers by the name of the prompt, and remembers what it was asked."""

    endpoint = types.SimpleNamespace(model="tiny")

    def __init__(self, **answers):
        self.asked, self._answers = [], answers

    async def ask(self, prompt_template, schema, texts, seed=0, temperature=0.7, max_tokens=512, **values):
        assert prompt_template.fields == texts.keys() | values.keys(), "each name is filled in"
        self.asked.append((prompt_template.name, texts, seed, temperature, values))
        return self._answers[prompt_template.name]


def made(*names, seed, source):
    return {"model": "tiny", "prompts": {n: WORDS[n].digest for n in names}, "from": source, "seed": seed}


# queries

PASSAGE = Text("7", "Foxes live in holes.", "", "in.jsonl:3")


def write_query(query=" where do foxes live? ", rating=4, passage=PASSAGE, **options):
    asker = Answers(query={"task": "question answering", "query": query}, rate_query={"rating": rating})
    return asyncio.run(Queries(asker, WORDS, seed=5, **options)(passage)), asker.asked


def test_a_query_is_written_for_a_passage_and_rated():
    row, asked = write_query()
    assert row == {
        "query": "where do foxes live?",
        "positive": "Foxes live in holes.",
        "task": "question answering",
        "rating": 4,
        "made": made("query", "rate_query", seed=5, source="in.jsonl:3"),
    }
    both = {"query": "where do foxes live?", "passage": "Foxes live in holes."}
    assert asked == [("query", {"passage": both["passage"]}, 5, 0.7, {}), ("rate_query", both, 5, 0.0, {})]


def test_a_title_stands_above_the_passage_and_in_a_field_of_its_own():
    row, asked = write_query(passage=Text("7", "They live in holes.", "Foxes", "in.jsonl:3"))
    assert row["positive"] == "They live in holes." and row["title"] == "Foxes"
    assert [texts["passage"] for _, texts, *_ in asked] == ["Foxes\nThey live in holes."] * 2


@pytest.mark.parametrize("query", ["live in holes", "  Foxes ", " ", "\n"])
def test_a_query_that_the_passage_holds_or_a_blank_one_is_rejected_unrated(query):
    asker = Answers(query={"task": "fact checking", "query": query})
    with pytest.raises(Rejected, match="^query: copied from the passage$"):
        asyncio.run(Queries(asker, WORDS)(PASSAGE))
    assert [name for name, *_ in asker.asked] == ["query"]


@pytest.mark.parametrize("rating, least", [(3, 4), (4, 5), (1, 2)])
def test_a_query_that_is_rated_too_low_is_rejected(rating, least):
    with pytest.raises(Rejected, match=f"^rated {rating}, below {least}$"):
        write_query(rating=rating, least=least)
    assert write_query(rating=least, least=least)[0]["rating"] == least


# labelled texts


def labelled(asker=None, **options):
    return Labelled(asker, WORDS, "reviews", ["good", "bad", "mixed"], **{"listed": 8, "seed": 5, **options})


def entries(items, what=("people", 2), **options):
    asker = Answers(**{what[0]: {"items": items}})
    return asyncio.run(labelled(asker, **options).entries(what)), asker.asked


def test_the_tail_of_a_list_is_taken():
    found, asked = entries([f"item {i}" for i in range(8)], tail=0.25)
    assert found == ["item 6", "item 7"]
    assert asked == [("people", {}, 5 + 2, 1.0, {"count": "8", "kind": "reviews"})]
    assert len(entries([f"item {i}" for i in range(8)], tail=1.0)[0]) == 8
    assert entries([f"item {i}" for i in range(5)], ("subjects", 0))[0] == ["item 2", "item 3", "item 4"]


def test_items_that_are_blank_or_stand_twice_do_not_count():
    assert entries(["a", " a ", "  ", "b", "c", "b", "d"])[0] == ["c", "d"]


def test_labels_come_in_turn_and_the_rest_is_drawn():
    people, subjects = [f"person {i}" for i in range(5)], [f"subject {i}" for i in range(5)]
    drawn = list(labelled().draws(600, people, subjects))
    assert [d.number for d in drawn] == list(range(600))
    assert [d.label for d in drawn[:4]] == ["good", "bad", "mixed", "good"]
    for values, known in (("person", people), ("subject", subjects), ("length", synthesis.LENGTHS)):
        counts = collections.Counter(getattr(d, values) for d in drawn)
        assert counts.keys() == set(known) and min(counts.values()) > 600 / len(known) / 2
    assert len({(d.person, d.subject) for d in drawn}) == 25, "one is not drawn by the other"


def test_a_draw_depends_on_its_number_and_the_seed_alone():
    people, subjects = [f"person {i}" for i in range(50)], [f"subject {i}" for i in range(50)]
    few, many = (list(labelled().draws(count, people, subjects)) for count in (5, 20))
    assert many[:5] == few
    assert list(labelled(seed=6).draws(20, people, subjects)) != many


DRAW = Draw(3, "bad", "a cook", "knives", "one sentence")


def test_a_text_is_written_of_what_was_drawn():
    asker = Answers(labelled_text={"text": " They are blunt. "})
    assert asyncio.run(labelled(asker)(DRAW)) == {
        "text": "They are blunt.",
        "label": "bad",
        "made": made("people", "subjects", "labelled_text", seed=5, source="a cook"),
    }
    values = {"kind": "reviews", "label": "bad", "labels": "good, bad, mixed", "length": "one sentence"}
    # What was listed came from a model too: it is put between marks.
    assert asker.asked == [("labelled_text", {"person": "a cook", "subject": "knives"}, 5 + 3, 1.0, values)]


def test_a_blank_text_is_rejected():
    with pytest.raises(Rejected, match="^labelled_text: blank$"):
        asyncio.run(labelled(Answers(labelled_text={"text": " \n\t      \n "}))(DRAW))
