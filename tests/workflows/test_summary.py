"""What a run says before it begins, line by line; numbers counted by hand."""

import collections
import dataclasses
import types

import jax
import numpy as np
import pytest
from cached_examples import examples
from training_batches import bag_of_words

from embed import sharding
from embed.data.features import Scores
from embed.data.image_features import Image
from embed.data.interleaved import Interleaved
from embed.data.text_features import Text
from embed.losses.contrastive import Contrastive
from embed.models.lora import Lora
from embed.models.quantization import Quantization, Rule
from embed.objectives.adapters import Adapters
from embed.objectives.pairs import Pairs
from embed.workflows import summary


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(sharding.MeshShape(4, 2, 1))


class Words:
    """Decodes token ids as words."""

    def decode(self, ids) -> str:
        return " ".join(f"w{i}" for i in ids)


def recipe(lora=None, batch_size=4, steps=6, one_task=True, quantization=None):
    def built(model):
        pairs = Pairs(Contrastive(), model)
        return pairs if lora is None else Adapters(pairs, lora)

    return types.SimpleNamespace(
        batch_size=batch_size,
        schedule=types.SimpleNamespace(steps=steps),
        mixture=types.SimpleNamespace(one_task_per_batch=one_task, tasks=[]),
        record_features=(),
        prompts=None,
        lora=lora,
        quantization=quantization,
        tokenizer=Words(),
        built_objective=built,
    )


def model():
    """A table of 50 rows of 4 for the tokens, and a kernel of 4 x 6."""

    def init(key):
        return {"encoder": {"embedding": {"table": jax.numpy.zeros((50, 4))}}, "kernel": jax.numpy.zeros((4, 6))}

    bag = bag_of_words()
    axes = {"encoder": {"embedding": {"table": bag.axes["table"]}}, "kernel": bag.axes["kernel"]}
    return dataclasses.replace(bag, init=init, axes=axes, description={"encoder": {"type": "Bag"}})


def lines_of(made, mesh, **given) -> dict[str, list[str]]:
    """Returns what follows each word that a line begins with."""
    found = collections.defaultdict(list)
    for line in summary.lines(recipe(batch_size=made.batch_size, **given), model(), made, mesh):
        found[line[:11].strip()].append(line[11:])
    return found


def test_the_size_of_everything_is_said(folder, mesh):
    made = examples(folder, [24, 10], 4, rates={"t0": 3, "t1": 1})
    found = lines_of(made, mesh, steps=17)
    assert found["model"] == ["Bag: 224 parameters, 200 of them in the token table"]
    assert found[""] == ["embedding 6, Matryoshka sizes 6, 3"]
    assert found["mesh"] == ["data 4 x fsdp 2 x tensor 1 on 8 cpu device(s), 1 process(es)"]
    assert found["batch"] == ["4 examples, each batch from one task"]
    assert found["length"] == ["17 steps, 2.00 epochs of 34 examples"]
    assert lines_of(made, mesh, one_task=False)["batch"] == ["4 examples, tasks mixed"]
    assert "adapters" not in found


def test_every_task_is_shown_with_its_draws(folder, mesh):
    made = examples(folder, [24, 10], 4, rates={"t0": 1, "t1": 3})
    steps = 8
    drawn = collections.Counter(np.concatenate([made.drawn(t).tasks for t in range(steps)]).tolist())
    assert drawn == {0: 8, 1: 24}
    assert lines_of(made, mesh, steps=steps)["task"] == [
        "t1: 24 of 32 examples (75.0%), 2.40 epochs",
        "t0: 8 of 32 examples (25.0%), 0.33 epochs",
    ]


def test_of_many_tasks_the_smaller_are_shown_together_and_those_never_drawn_named(folder, mesh, monkeypatch):
    monkeypatch.setattr(summary, "TASKS_SHOWN", 1)
    made = examples(folder, [24, 10, 7], 4, rates={"t0": 4, "t1": 1, "t2": 1e-6})
    drawn = collections.Counter(np.concatenate([made.drawn(t).tasks for t in range(5)]).tolist())
    assert drawn == {0: 12, 1: 8}
    found = lines_of(made, mesh, steps=5)
    assert found["task"] == ["t0: 12 of 20 examples (60.0%), 0.50 epochs"]
    assert found[""][1:] == ["2 smaller tasks: 8 examples (40.0%) together"]
    assert found["note"] == ["1 tasks are never drawn in this run, such as t2; raise their rates"]


@pytest.mark.parametrize(
    ("most", "count", "draw", "described"),
    [
        (0, 0, "first", "query; target"),
        (3, 2, "first", "query; target; 2 negatives (the first of up to 3)"),
        (3, 2, "random", "query; target; 2 negatives (drawn of up to 3)"),
        (3, 3, "random", "query; target; 3 negatives"),
        (3, 5, "random", "query; target; 5 negatives"),
        (3, 0, "first", "query; target; 0 negatives (up to 3 in the data are not used)"),
    ],
)
def test_an_example_is_described_with_what_its_data_have_beside(folder, mesh, most, count, draw, described):
    made = examples(folder, [24], 4, most, count, draw=draw)
    assert lines_of(made, mesh)["example"] == [described]


def test_several_texts_of_one_feature_come_in_turn_and_scores_by_name():
    found = types.SimpleNamespace(caches=[types.SimpleNamespace(columns={"query": n}) for n in (1, 3)])
    assert summary._described(Text("query", 5), found) == "query, 1 of up to 3 in turn"
    assert summary._described(Scores("score"), found) == "score"


def test_adapters_are_counted(folder, mesh):
    made = examples(folder, [24])
    # a of 4 x 2 and b of 2 x 6
    assert lines_of(made, mesh, lora=Lora("kernel", rank=2))["adapters"] == [
        "rank 2 on 1 kernels: 20 parameters learn (8.9%); checkpoints hold the merged model"
    ]


def test_what_is_quantised_is_counted(folder, mesh):
    made = examples(folder, [24])
    # 200 values of the table, two in a byte, with a scale a row; 24 of the kernel with two scales a column
    rules = Quantization((Rule("table", 4), Rule("kernel", 8, 2)))
    assert lines_of(made, mesh, quantization=rules)["quantised"] == [
        "as custom: 1 arrays (89.3% of the parameters) in 4 bits, 1 arrays (10.7% of the parameters) in 8 bits, the rest in "
        f"float32: {(100 + 100 + 24 + 24) / (4 * 224):.3f} of the size of float32; what learns stays float32"
    ]
    rules = Quantization((Rule("table", 4, 3), Rule("kernel", 8)))
    reason = "stay float32: encoder/embedding/table has 4 inputs, not a multiple of 3"
    assert lines_of(made, mesh, quantization=rules)["note"] == [reason]


def test_the_first_examples_are_shown_as_the_model_reads_them(folder, mesh):
    made = examples(folder, [24], 4)
    first = made.read(made.drawn(0))[:3]
    words = Words()
    assert lines_of(made, mesh)["first"] == [
        f"{words.decode(e['query'])}  ->  {words.decode(e['target'])}" for e in first
    ]
    assert len(lines_of(examples(folder, [24], 2), mesh)["first"]) == 2


def test_a_long_text_is_cut_to_one_line():
    assert summary._one_line(" a\n b\tc ") == "a b c"
    assert summary._one_line("x" * 90) == "x" * 90
    assert summary._one_line("x" * 91) == "x" * 87 + "..."


PROMPT = "find: {content}"


@pytest.mark.parametrize(
    ("trained", "prompt", "is_noted"),
    [
        (["{content}"], PROMPT, True),
        (["{content}", PROMPT], PROMPT, False),
        (["{content}"], "{content}", False),
        ([None], PROMPT, False),
        (["similar: {content}", "{content}"], PROMPT, True),
    ],
)
def test_a_prompt_of_searches_that_no_task_trains_is_noted(trained, prompt, is_noted):
    """Searches and suites would use a prompt that the model was not trained with."""
    tasks = [types.SimpleNamespace(query_prompt=one) for one in trained]
    given = types.SimpleNamespace(
        record_features=(Text("query", 8, "query"), Text("target", 8)),
        mixture=types.SimpleNamespace(tasks=tasks),
        prompts={"query": prompt, "none": "{content}"},
    )
    notes = summary._prompt_notes(given)
    assert len(notes) == is_noted
    assert all("no task trains the prompt 'query', 'find: {content}'" in note for note in notes)
    without_queries = types.SimpleNamespace(**{**vars(given), "record_features": (Text("target", 8),)})
    assert summary._prompt_notes(without_queries) == []


def test_images_that_are_served_otherwise_than_trained_are_noted():
    """A feature of another size than the model's own, and prompts of images that the finished model embeds without one."""
    description = {"image": {"image_size": 16}}
    tasks = [types.SimpleNamespace(name="t", query_prompt="find: {content}", target_prompt="{content}")]

    def notes(features, methods=("text", "image")):
        recipe = types.SimpleNamespace(record_features=features, mixture=types.SimpleNamespace(tasks=tasks))
        model = types.SimpleNamespace(description=description, methods=methods)
        return summary._image_notes(recipe, model)

    in_text = Interleaved("query", 8, "query", max_images=1, size=16)
    assert notes([Image("target", size=16), in_text]) == []
    (note,) = notes([Image("target", size=12), in_text])
    assert "'target' has images of 12 pixels, and the finished model resizes images to 16" in note
    (note,) = notes([in_text], methods=("text",))
    assert "task 't': 'query' is trained in the prompt 'find: {content}'" in note and "set the prompt to 'none'" in note
