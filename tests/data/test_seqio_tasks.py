"""Our tasks as seqio tasks and mixtures: the same arrays as the encoder's, one-line errors, TFDS, one's own tasks."""

import dataclasses
import functools
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from tiny_models import word_tokenizer

from embed import image_bytes
from embed.data import prepare, records, seqio_library, seqio_tasks
from embed.data.image_features import Image
from embed.data.record_encoder import RecordEncoder
from embed.data.tasks import Mixture, RegisteredTask, Task
from embed.data.text_features import Lengths, pairs
from embed.errors import DataError
from embed.sources.datasets import Tfds
from embed.sources.record_files import JsonLines

FEATURES = pairs(Lengths(8, 10))
WORDS = [
    *["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
    *"abcdefghij",
    *["task:", "search", "result", "|", "query:", "title:", "none", "text:"],
]
PAIR = {"query": "query", "target": "target", "negatives": "negatives", "title": "title"}


@pytest.fixture(scope="module")
def seqio():
    return seqio_library.libraries()[0]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return word_tokenizer(tmp_path_factory.mktemp("vocabulary") / "words.json", WORDS[4:])


@pytest.fixture
def validated():
    """Asks for ragged tensors that are validated."""


@pytest.fixture(autouse=True)
def unvalidated(request, seqio, monkeypatch):
    """Ragged tensors are not validated unless a test asks for it: half the time of a pipeline is making those checks."""
    if "validated" not in request.fixturenames:
        ragged = seqio_library.libraries()[1].RaggedTensor
        monkeypatch.setattr(ragged, "from_row_lengths", functools.partial(ragged.from_row_lengths, validate=False))


def rows(count=7):
    letters = "abcdefghij"
    made = []
    for i in range(count):
        negatives = [" ".join(letters[(i + n + k) % 10] for k in range(1 + i % 4)) for n in range(i % 3)]
        text = " ".join(letters[(i + k) % 10] for k in range(1 + 2 * i % 9))
        made.append(
            {"query": f"{letters[i % 10]} \u00e9 {i}", "target": text, "negatives": negatives, "title": "h" * (i % 2)}
        )
    return made


def file_task(folder, name="letters", content=None, **settings):
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows() if content is None else content)))
    return Task(name, JsonLines(str(path), PAIR, optional=("negatives", "title")), **settings)


def arrays_of(task, tokenizer, features):
    """Yields the encoded examples of a task as arrays."""
    fields = seqio_tasks.written_fields(features)
    return (records.unpack(one, fields) for one in seqio_tasks.examples(task, tokenizer, features))


def same_as_encoder(found, task, tokenizer, given, features=FEATURES):
    wanted = RecordEncoder(features, tokenizer, task.query_prompt, task.target_prompt)(given)
    for row, expected in zip(found, wanted, strict=True):
        assert set(row) == set(expected)
        for name, value in expected.items():
            assert np.asarray(row[name]).dtype == value.dtype, name
            np.testing.assert_array_equal(row[name], value, err_msg=name)


def one_line_error(function):
    with pytest.raises(DataError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message, message
    return message


# Files.


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 300])
def test_examples_are_those_of_the_encoder_in_order(tmp_path, tokenizer, validated, count):
    task = file_task(tmp_path, content=rows(count))
    given = [record for _, record in task.source.examples()]
    assert {len(r["negatives"]) for r in given} == set(range(min(count, 3)))
    same_as_encoder(arrays_of(task, tokenizer, FEATURES), task, tokenizer, given)


@pytest.mark.slow
def test_truncation_and_prompts_are_the_encoders(tmp_path, tokenizer):
    task = file_task(tmp_path, query_prompt="none", target_prompt="text: {content} | {title}")
    given = [record for _, record in task.source.examples()]
    found = list(arrays_of(task, tokenizer, pairs(Lengths(4, 5))))
    same_as_encoder(found, task, tokenizer, given, pairs(Lengths(4, 5)))
    assert sum(row["target_truncated"] for row in found) > 0
    assert max(len(row["target"]) for row in found) == 5


def test_prompts_of_records_go_through_seqio(tmp_path, tokenizer):
    content = [{**row, "query_prompt": "search {content}" if i % 2 else ""} for i, row in enumerate(rows())]
    task = file_task(tmp_path, content=content)
    source = dataclasses.replace(task.source, fields={**PAIR, "query_prompt": "query_prompt"})
    task = dataclasses.replace(task, source=source)
    found = list(arrays_of(task, tokenizer, FEATURES))
    same_as_encoder(found, task, tokenizer, content)
    search, task_word = WORDS.index("search"), WORDS.index("task:")
    assert [row["query"][1] for row in found[:2]] == [task_word, search]


def test_the_seqio_task_gives_the_encoders_tokens(tmp_path, tokenizer, seqio):
    task = file_task(tmp_path)
    made = seqio_tasks.to_seqio(dataclasses.replace(task, name="letters-1.of/two"), tokenizer, FEATURES)
    assert isinstance(made, seqio.Task)
    assert made.name == "letters_1.of_two"
    dataset = made.get_dataset(None, split="train", shuffle=False, trim_output_features=False)
    given = [record for _, record in task.source.examples()]
    wanted = RecordEncoder(FEATURES, tokenizer, task.query_prompt, task.target_prompt)(given)
    for row, expected in zip(dataset.as_numpy_iterator(), wanted, strict=True):
        assert set(row) == set(expected)
        for name in expected:
            np.testing.assert_array_equal(row[name], expected[name], err_msg=name)


def test_a_source_with_keys_of_its_own_keeps_them(tokenizer):
    class Labelled:
        def examples(self):
            for i, label in enumerate(["x", "y", "x"]):
                yield f"here:{i}", {"query": f"a {i}", "target": f"b {i}", "target_key": f"label:{label}"}

    found = list(arrays_of(Task("keys", Labelled()), tokenizer, FEATURES))
    ids = [int(row["target_id"][0]) for row in found]
    assert ids[0] == ids[2] != ids[1]


def test_the_seqio_vocabulary_is_the_tokenizer(tokenizer):
    words = seqio_tasks.vocabulary(tokenizer)
    assert words.vocab_size == len(WORDS) and words.pad_id == 0
    assert words.encode("a b") == [2, 4, 5, 3]
    assert words.encode_tf(seqio_library.libraries()[1].constant("a b")).numpy().tolist() == [2, 4, 5, 3]
    assert words.decode([4, 5]) == "a b"
    assert words == seqio_tasks.vocabulary(tokenizer)
    assert words != seqio_tasks.vocabulary(dataclasses.replace(tokenizer, pad_token="a"))


def test_caches_are_prepared_through_seqio(tmp_path, tokenizer):
    task = file_task(tmp_path, name="two-2", content=rows(4))
    (made,) = prepare.ensure_caches(Mixture("one", [task]), tokenizer, FEATURES, tmp_path / "caches", lambda line: None)
    given = [record for _, record in task.source.examples()]
    wanted = RecordEncoder(FEATURES, tokenizer, "query", "document")(given)
    for row, expected in zip(made.read(range(4)), wanted, strict=True):
        for name in row:
            np.testing.assert_array_equal(row[name], expected[name])
    assert made.manifest["truncated"]["target"] == sum(int(e["target_truncated"]) for e in wanted)


# Errors.


@pytest.mark.parametrize(
    ("bad", "said", "before"),
    [
        ({"query": " ", "target": "b"}, "field 'query' is empty; remove the record or fill it", 300),
        ({"query": "a"}, "no field 'target' (mapped to target)", 0),
    ],
)
def test_an_error_in_a_source_reaches_the_user_as_it_is(tmp_path, tokenizer, bad, said, before):
    task = file_task(tmp_path, content=[*rows(before), bad, *rows(2)])
    message = one_line_error(lambda: list(arrays_of(task, tokenizer, FEATURES)))
    assert message.startswith(f"{tmp_path}/letters.jsonl:{before + 1}: {said}")
    with pytest.raises(DataError) as caught:
        list(task.source.examples())
    assert message == str(caught.value)


def test_a_missing_file_and_an_unexpected_error_are_one_line(tmp_path, tokenizer):
    task = Task("gone", JsonLines(str(tmp_path / "gone.jsonl")))
    message = one_line_error(lambda: list(arrays_of(task, tokenizer, FEATURES[:2])))
    assert message.startswith(f"{tmp_path}/gone.jsonl: no such file")

    class Broken:
        def examples(self):
            yield "here:1", {"query": "a", "target": "b"}
            raise RuntimeError("first line\nsecond line")

    message = one_line_error(lambda: list(arrays_of(Task("broken", Broken()), tokenizer, FEATURES[:2])))
    assert message == "task 'broken': first line; correct the source"


# Registries.


def counted(seqio, name, sizes, draws):
    """Returns how many of the first draws of a registered mixture are of each query's first token."""
    made = seqio.get_mixture_or_task(name)
    dataset = made.get_dataset(None, split="train", shuffle=False, num_epochs=None, seed=1, trim_output_features=False)
    firsts = [int(row["query"][1]) for row in dataset.take(draws).as_numpy_iterator()]
    return [firsts.count(first) for first in sizes]


def letter_rows(letter, count):
    return [{"query": letter, "target": f"{letter} {i}"} for i in range(count)]


@pytest.mark.slow
def test_registered_tasks_and_mixtures_are_usable_with_seqio(tmp_path, tokenizer, seqio):
    tasks = [
        file_task(tmp_path, name=f"{letter}-reg", content=letter_rows(letter, 20), query_prompt="none")
        for letter in "abc"
    ]
    mixture = Mixture("all-three", tasks, rates={"a-reg": 6, "b-reg": 3, "c-reg": 1})
    sizes = {t.name: 20 for t in tasks}
    seqio_tasks.register(mixture, tokenizer, FEATURES, sizes)
    for name in ("a_reg", "b_reg", "c_reg"):
        assert name in seqio.TaskRegistry.names()
        assert seqio.TaskRegistry.get(name).name == name
    assert "all_three" in seqio.MixtureRegistry.names()
    made = seqio.get_mixture_or_task("all_three")
    shares = [made.get_rate(seqio.TaskRegistry.get(n)) for n in ("a_reg", "b_reg", "c_reg")]
    np.testing.assert_allclose(np.array(shares) / sum(shares), [0.6, 0.3, 0.1], rtol=1e-6)
    found = counted(seqio, "all_three", [WORDS.index(x) for x in "abc"], 300)
    assert sum(found) == 300
    for n, share in zip(found, (0.6, 0.3, 0.1)):
        assert abs(n - 300 * share) < 5 * (300 * share * (1 - share)) ** 0.5
    seqio_tasks.register(mixture, tokenizer, FEATURES, sizes)  # once more changes nothing
    assert seqio.get_mixture_or_task("all_three") is made


def test_a_mixture_may_have_the_name_of_its_task(tmp_path, tokenizer, seqio):
    task = file_task(tmp_path, name="same_name", content=letter_rows("a", 3))
    seqio_tasks.register(Mixture("same_name", [task]), tokenizer, FEATURES, {"same_name": 3})
    assert "same_name" in seqio.TaskRegistry.names()


def test_names_that_become_one_in_seqio_are_kept_apart_or_refused(tmp_path, tokenizer, seqio):
    tasks = [
        file_task(tmp_path, name=n, content=letter_rows(x, 5), query_prompt="none")
        for n, x in (("n-1", "a"), ("n_1", "b"))
    ]
    mixture = Mixture("near", tasks, rates={"n-1": 1, "n_1": 1})
    try:
        seqio_tasks.register(mixture, tokenizer, FEATURES, {"n-1": 5, "n_1": 5})
    except Exception as e:
        assert type(e).__module__ == "embed.errors", e
        return
    assert min(counted(seqio, "near", [WORDS.index(x) for x in "ab"], 100)) > 0


# A task of one's own.

OWN = """
import seqio
import tensorflow as tf

def dataset(split, shuffle_files, seed=None):
    texts = {{"dev": ["z 1", "z 2"], "train": ["a b", " c ", "d e f"]}}[split]
    made = tf.data.Dataset.from_tensor_slices({{"{query}": texts, "target": [t[::-1] for t in texts]}})
    return made.map(lambda x: {{**x, {extra}}})

seqio.TaskRegistry.add(
    "{name}", source=seqio.FunctionDataSource(dataset_fn=dataset, splits=["train", "dev"]), preprocessors=[],
    output_features={{n: seqio.Feature(seqio.PassThroughVocabulary(1), add_eos=False, dtype=tf.string, rank=0)
                     for n in ("{query}", "target")}},
)
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch, seqio):
    """Returns a function that writes a module with a seqio task and puts it on the path; the name is for both."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name, extra="", query="query"):
        (tmp_path / f"{name}.py").write_text(OWN.format(name=name, extra=extra, query=query))
        return RegisteredTask(name, name, query_prompt="none", target_prompt="none")

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "extra", "more"),
    [
        ("own_plain", "", {}),
        ("own_one_negative", '"negatives": "i j"', {"negatives": ["i j"]}),
        (
            "own_everything",
            '"negatives": tf.constant(["i", "j h"]), "title": "g h", "target_key": "label:1"',
            {"negatives": ["i", "j h"], "title": "g h", "target_key": "label:1"},
        ),
    ],
)
def test_a_task_of_ones_own_module(own_module, tokenizer, name, extra, more):
    task = dataclasses.replace(own_module(name, extra), target_prompt="document" if "title" in more else "none")
    given = [{"query": t.strip(), "target": t[::-1].strip(), **more} for t in ("a b", " c ", "d e f")]
    same_as_encoder(arrays_of(task, tokenizer, FEATURES), task, tokenizer, given)


CACHED = """
import seqio
import tensorflow as tf

def fail(split, shuffle_files, seed=None):
    raise AssertionError("the source is read again")

seqio.TaskRegistry.add(
    "{name}", source=seqio.FunctionDataSource(dataset_fn=fail, splits=["train"]),
    preprocessors=[
        seqio.CacheDatasetPlaceholder(),
        lambda data: data.map(lambda x: {{"query": x["query"], "target": tf.strings.join([x["target"], "!"])}}),
    ],
    output_features={{n: seqio.Feature(seqio.PassThroughVocabulary(1), add_eos=False, dtype=tf.string, rank=0)
                     for n in ("query", "target")}},
)
"""


def write_cached(folder, pairs, shards=2) -> None:
    """Writes what seqio's pipeline writes: records of tensorflow in shards, and files that describe them."""
    import tensorflow as tf

    folder.mkdir(parents=True)
    feature = lambda text: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))  # noqa: E731
    for shard in range(shards):
        with tf.io.TFRecordWriter(str(folder / f"train.tfrecord-{shard:05d}-of-{shards:05d}")) as writer:
            for query, target in pairs[shard::shards]:
                features = tf.train.Features(feature={"query": feature(query), "target": feature(target)})
                writer.write(tf.train.Example(features=features).SerializeToString())
    described = {name: {"shape": [], "dtype": "string"} for name in ("query", "target")}
    info = {"num_shards": shards, "features": described, "seqio_version": "0.0.20"}
    (folder / "info.train.json").write_text(json.dumps(info))
    (folder / "stats.train.json").write_text(json.dumps({"examples": len(pairs)}))
    (folder / "COMPLETED").touch()


@pytest.mark.slow
def test_examples_that_seqio_has_cached(own_module, tokenizer, tmp_path):
    own_module("own_cached")
    (tmp_path / "own_cached.py").write_text(CACHED.format(name="own_cached"))
    pairs = [(f"a {i}", f"b {i}") for i in range(7)]
    task = RegisteredTask("own_cached", "own_cached", cached_in=str(tmp_path / "cached"))
    with pytest.raises(DataError, match="cached/own_cached: holds no finished cache of the task 'own_cached'"):
        task.fingerprint()
    write_cached(tmp_path / "cached" / "own_cached", pairs)
    rows = arrays_of(task, tokenizer, FEATURES)
    given = [{"query": query, "target": f"{target}!"} for query, target in pairs[::2] + pairs[1::2]]
    same_as_encoder(rows, task, tokenizer, given)
    first = task.fingerprint()
    assert set(first) == {"info.train.json", "stats.train.json", *(f"train.tfrecord-0000{i}-of-00002" for i in (0, 1))}
    (tmp_path / "cached" / "own_cached" / "stats.train.json").write_text('{"examples": 6}')
    assert task.fingerprint() != first
    assert "cached_in" not in RegisteredTask("t", "m").definition()


def test_negatives_of_different_number_in_a_task_of_ones_own(own_module, tokenizer):
    task = own_module("own_ragged", '"negatives": tf.strings.split(x["query"])[1:]')
    given = [
        {"query": "a b", "target": "b a", "negatives": ["b"]},
        {"query": "c", "target": "c", "negatives": []},
        {"query": "d e f", "target": "f e d", "negatives": ["e", "f"]},
    ]
    same_as_encoder(arrays_of(task, tokenizer, FEATURES), task, tokenizer, given)


def test_another_split_of_a_task_of_ones_own(own_module, tokenizer):
    task = dataclasses.replace(own_module("own_split", '"negatives": tf.strings.split(x["query"])[1:]'), split="dev")
    assert len(list(arrays_of(task, tokenizer, FEATURES))) == 2


def test_a_task_of_ones_own_without_a_query_is_refused_in_one_line(own_module, tokenizer):
    task = own_module("own_no_query", query="question")
    message = one_line_error(lambda: list(arrays_of(task, tokenizer, FEATURES)))
    assert message.startswith("own_no_query: no field 'query' (mapped to query); it has ")


def test_an_empty_text_in_a_task_of_ones_own_is_placed(own_module, tokenizer):
    task = own_module(
        "own_empty", '"query": tf.strings.regex_replace(x["query"], "c", ""), "negatives": x["query"][None]'
    )
    message = one_line_error(lambda: list(arrays_of(task, tokenizer, FEATURES)))
    assert message == "own_empty:1: field 'query' is empty; remove the record or fill it"


@pytest.mark.parametrize("missing", ["module", "name"])
def test_a_task_of_ones_own_that_is_not_there_is_refused_in_one_line(own_module, tokenizer, missing):
    task = own_module(f"own_absent_{missing}")
    task = dataclasses.replace(task, **{missing: "nowhere_to_be_found"})
    with pytest.raises(Exception, match="nowhere_to_be_found") as caught:
        list(arrays_of(task, tokenizer, FEATURES))
    assert type(caught.value).__module__ == "embed.errors"
    assert "\n" not in str(caught.value)


def test_a_task_of_ones_own_is_registered_as_tokens(own_module, tokenizer, seqio):
    task = own_module("own_registered", '"negatives": tf.strings.split(x["query"])[1:]')
    seqio_tasks.register(Mixture("own_mixture", [task]), tokenizer, FEATURES, {"own_registered": 3})
    dataset = seqio.get_mixture_or_task("own_mixture").get_dataset(None, split="train", shuffle=False, num_epochs=1)
    found = sorted(row["query"].tolist() for row in dataset.as_numpy_iterator())
    assert found == [[2, 4, 5, 3], [2, 6, 3], [2, 7, 8, 9, 3]]


# TFDS.


PICTURE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory, seqio):
    """A small TFDS dataset, written here."""
    folder = tmp_path_factory.mktemp("tfds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_datasets as tfds

        features = tfds.features.FeaturesDict(
            {
                "question": tfds.features.Text(), "answer": tfds.features.Text(), "name": tfds.features.Text(),
                "wrong": tfds.features.Text(), "wrongs": tfds.features.Sequence(tfds.features.Text()),
                "number": tfds.features.Scalar(np.int64), "picture": tfds.features.Image(shape=(None, None, 3)),
            }
        )  # fmt: skip
        examples = [
            {
                "question": f" a {i}",
                "answer": "b c",
                "name": "h",
                "wrong": "i",
                "wrongs": ["j"] * i,
                "number": i,
                "picture": PICTURE + np.uint8(i),
            }
            for i in range(3)
        ]
        place = str(folder / "little_pairs" / "1.0.0")
        (folder / "little_pairs" / "1.0.0").mkdir(parents=True)
        named = tfds.core.dataset_info.DatasetIdentity("little_pairs", "1.0.0", place, "none")
        writer = tfds.core.SequentialWriter(tfds.core.DatasetInfo(builder=named, features=features), 100)
        writer.initialize_splits(["train", "dev"])
        writer.add_examples({"train": examples, "dev": examples[:1]})
        writer.close_all()
    return str(folder)


def tfds_task(folder, split="train", **fields):
    fields = {"query": "question", "target": "answer", **fields}
    return Task("little", Tfds("little_pairs:1.0.0", fields, split, folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"negatives": "wrong"}, lambda i: {"negatives": ["i"]}),
        ({"title": "name", "negatives": "wrongs"}, lambda i: {"title": "h", "negatives": ["j"] * i}),
    ],
    ids=["one negative", "titles and negatives"],
)
def test_a_tfds_dataset(tfds_folder, tokenizer, fields, more):
    task = tfds_task(tfds_folder, **fields)
    given = [{"query": f"a {i}", "target": "b c", **more(i)} for i in range(3)]
    same_as_encoder(arrays_of(task, tokenizer, FEATURES), task, tokenizer, given)


def test_images_of_a_tfds_dataset_stay_the_files_that_they_are(tfds_folder, tokenizer):
    task = Task("little", Tfds("little_pairs:1.0.0", {"image": "picture"}, "train", tfds_folder))
    rows = list(arrays_of(task, tokenizer, (Image(),)))
    for i, row in enumerate(rows):
        image = image_bytes.open_image(row["image_file"].tobytes(), "")
        np.testing.assert_array_equal(np.asarray(image), PICTURE + np.uint8(i))
    assert len(rows) == 3


def test_another_split_of_a_tfds_dataset(tfds_folder, tokenizer):
    task = tfds_task(tfds_folder, "dev", negatives="wrongs")
    assert len(list(arrays_of(task, tokenizer, FEATURES))) == 1


def every_second(task, tokenizer):
    """Returns the packed examples of a task, and those of the records with odd numbers alone."""
    chosen = seqio_tasks.examples(task, tokenizer, FEATURES, lambda number: number % 2 == 1)
    return list(seqio_tasks.examples(task, tokenizer, FEATURES)), list(chosen)


def test_chosen_records_of_a_tfds_dataset_and_of_a_file(tfds_folder, tmp_path, tokenizer):
    for task in (tfds_task(tfds_folder, negatives="wrongs"), file_task(tmp_path)):
        whole, chosen = every_second(task, tokenizer)
        assert len(whole) > 2 and chosen == whole[1::2]


def test_a_tfds_field_that_is_not_there_or_no_text_is_refused_in_one_line(tfds_folder, tokenizer):
    task = tfds_task(tfds_folder, target="anser", negatives="wrongs")
    message = one_line_error(lambda: list(arrays_of(task, tokenizer, FEATURES)))
    assert message.startswith("little_pairs:1.0.0: no field 'anser'") and "answer" in message
    task = tfds_task(tfds_folder, target="number", negatives="wrongs")
    message = one_line_error(lambda: list(arrays_of(task, tokenizer, FEATURES)))
    assert message.startswith("little_pairs:1.0.0: field 'number' is int64, expected a text")


def test_a_tfds_field_map_is_checked(tfds_folder, tokenizer):
    task = Task(
        "little", Tfds("little_pairs:1.0.0", {"query": "question", "negatives": "wrongs"}, "train", tfds_folder)
    )
    message = one_line_error(lambda: list(arrays_of(task, tokenizer, FEATURES)))
    assert "'target'" in message


def test_a_tfds_dataset_that_is_not_there_is_refused_in_one_line(tfds_folder, tokenizer):
    task = Task("little", Tfds("no_such_pairs:1.0.0", {"query": "q", "target": "t"}, "train", tfds_folder))
    message = one_line_error(lambda: list(arrays_of(task, tokenizer, FEATURES)))
    assert "no_such_pairs" in message


@pytest.mark.slow
def test_every_file_of_data_and_sources_is_imported_without_tensorflow():
    program = (
        "import importlib, pathlib, sys\n"
        "for name in ('tensorflow', 'seqio', 'tensorflow_datasets', 'tensorflow_text'): sys.modules[name] = None\n"
        "import embed.data, embed.sources\n"
        "for package in (embed.data, embed.sources):\n"
        "    for path in sorted(pathlib.Path(package.__file__).parent.glob('*.py')):\n"
        "        importlib.import_module(f'{package.__name__}.{path.stem}'); print(path.stem)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert {"cache", "loader", "prepare", "seqio_tasks", "record_files", "tokenizers"} <= set(ran.stdout.split())
