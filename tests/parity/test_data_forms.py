"""Files of pairs as pandas, pyarrow and `datasets` write them, read as records."""

import numpy as np
import PIL.Image
import pytest

pandas = pytest.importorskip("pandas")
datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")

from embed import sources  # noqa: E402
from embed.data import cache, seqio_tasks  # noqa: E402
from embed.data.examples import Examples  # noqa: E402
from embed.data.features import Labels, Scores  # noqa: E402
from embed.data.folders import task_per_file  # noqa: E402
from embed.data.image_features import Image  # noqa: E402
from embed.data.records import unpack  # noqa: E402
from embed.data.tasks import Mixture, Task  # noqa: E402
from embed.data.text_features import Lengths, pairs  # noqa: E402
from embed.data.tokenizers import NoTexts  # noqa: E402
from embed.errors import DataError  # noqa: E402
from embed.text import content_id  # noqa: E402

pytestmark = pytest.mark.parity
ROWS = [
    {"question": 'who "is" she, and where?', "answers": {"text": ["Ada\nLovelace", "A. L."], "start": [3, 9]}},
    {"question": "d\tõ\u2028 x", "answers": {"text": ["日本"], "start": [0]}},
]
NESTED = {"query": "question", "target": "answers.text[0]", "negatives": "answers.text"}
FLAT = {"query": "question", "target": "answer"}
EXPECTED = [(row["question"], row["answers"]["text"][0]) for row in ROWS]


def records(source) -> list[tuple[str, str]]:
    return [(record["query"], record["target"]) for _, record in source.examples()]


@pytest.fixture
def flat():
    return pandas.DataFrame([{"question": row["question"], "answer": row["answers"]["text"][0]} for row in ROWS])


@pytest.mark.parametrize(
    "options", [{}, {"index": False}, {"quoting": 1}, {"sep": "\t"}, {"compression": "gzip"}], ids=str
)
def test_tables_of_pandas(flat, tmp_path, options):
    name = ("t.tsv" if "sep" in options else "t.csv") + (".gz" if "compression" in options else "")
    flat.to_csv(tmp_path / name, **options)
    assert records(sources.TabSeparated(str(tmp_path / name), FLAT)) == EXPECTED


@pytest.mark.parametrize("options", [{"lines": True}, {"lines": False}, {"lines": True, "force_ascii": False}], ids=str)
def test_json_of_pandas_with_nested_fields(tmp_path, options):
    pandas.DataFrame(ROWS).to_json(tmp_path / "t.jsonl", orient="records", **options)
    assert records(sources.JsonLines(str(tmp_path / "t.jsonl"), NESTED)) == EXPECTED


def test_parquet_of_pyarrow_with_nested_fields(tmp_path):
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    assert records(sources.Parquet(str(tmp_path / "t.parquet"), NESTED)) == EXPECTED


def test_a_dataset_that_was_saved_to_disk(tmp_path):
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "one")
    assert records(sources.HuggingFaceDataset(str(tmp_path / "one"), NESTED)) == EXPECTED
    before = sources.HuggingFaceDataset(str(tmp_path / "one"), NESTED).fingerprint()
    datasets.DatasetDict({"train": saved, "dev": saved.select([1])}).save_to_disk(tmp_path / "several")
    assert records(sources.HuggingFaceDataset(str(tmp_path / "several"), NESTED)) == EXPECTED
    assert records(sources.HuggingFaceDataset(str(tmp_path / "several"), NESTED, split="dev")) == EXPECTED[1:]
    saved.select([0]).save_to_disk(tmp_path / "two")
    assert sources.HuggingFaceDataset(str(tmp_path / "two"), NESTED).fingerprint() != before


def files(source) -> list[bytes]:
    """Returns the image files of the records of a source, as a cache holds them."""
    task = Task("pictures", source)
    fields = seqio_tasks.written_fields((Image(),))
    rows = (unpack(one, fields) for one in seqio_tasks.examples(task, NoTexts(), (Image(),)))
    return [row["image_file"].tobytes() for row in rows]


def test_images_of_datasets_parquet_and_tar(tmp_path):
    """The bytes of the files are kept, whichever tool wrote the records: `datasets`, its parquet files, pyarrow."""
    random, paths = np.random.default_rng(0), []
    for i, extension in enumerate(("png", "jpg")):
        paths.append(tmp_path / f"{i}.{extension}")
        PIL.Image.fromarray(random.integers(0, 256, (9, 11, 3)).astype(np.uint8)).save(paths[-1])
    expected, fields = [path.read_bytes() for path in paths], {"image": "picture"}
    column = datasets.Dataset.from_dict({"picture": list(map(str, paths))}).cast_column("picture", datasets.Image())
    column.save_to_disk(tmp_path / "saved")
    assert files(sources.HuggingFaceDataset(str(tmp_path / "saved"), fields)) == expected
    column.to_parquet(tmp_path / "set.parquet")
    assert files(sources.Parquet(str(tmp_path / "set.parquet"), fields)) == expected
    pandas.DataFrame({"picture": expected}).to_parquet(tmp_path / "bytes.parquet")
    assert files(sources.Parquet(str(tmp_path / "bytes.parquet"), fields)) == expected
    pandas.DataFrame({"picture": [str(path) for path in paths]}).to_parquet(tmp_path / "paths.parquet")
    with pytest.raises(DataError, match=r"paths.parquet:1: field 'picture' is str, expected the bytes of a file"):
        files(sources.Parquet(str(tmp_path / "paths.parquet"), fields))


def test_bad_rows_of_a_saved_dataset_are_left_out_and_counted(tmp_path):
    datasets.Dataset.from_list([*ROWS, {"question": "", "answers": ROWS[0]["answers"]}]).save_to_disk(tmp_path / "one")
    source = sources.HuggingFaceDataset(str(tmp_path / "one"), NESTED, on_bad_record="skip", max_bad_share=0.4)
    assert records(source) == EXPECTED
    assert source.bad_records.skipped == 1 and "one[train]:2: field 'question' is empty" in source.bad_records.first[0]


def test_what_a_saved_dataset_does_not_have_is_refused(tmp_path):
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": saved}).save_to_disk(tmp_path / "several")
    for options, message in (
        ({"split": "dev"}, "holds one dataset, not the split 'dev'"),
        ({"streaming": True}, "written by save_to_disk"),
        ({"revision": "main"}, "written by save_to_disk"),
    ):
        with pytest.raises(DataError, match=message):
            records(sources.HuggingFaceDataset(str(tmp_path / "one"), NESTED, **options))
    with pytest.raises(DataError, match="no split 'trian'; did you mean 'train'"):
        records(sources.HuggingFaceDataset(str(tmp_path / "several"), NESTED, split="trian"))


def test_a_folder_of_all_forms_is_a_task_each(flat, tmp_path):
    pairs = flat.rename(columns={"question": "query", "answer": "positive"})
    pairs.to_csv(tmp_path / "table.csv", index=False)
    pairs.to_json(tmp_path / "lines.jsonl", orient="records", lines=True)
    datasets.Dataset.from_pandas(pairs).save_to_disk(tmp_path / "saved")
    tasks = task_per_file(str(tmp_path))
    assert [task.name for task in tasks] == ["lines", "saved", "table"]
    assert all(records(task.source) == EXPECTED for task in tasks)


class Letters:
    """One token a character."""

    digest = "letters"

    def encode_batch(self, texts, max_length):
        rows = [np.array([ord(c) for c in text[:max_length]], np.int32) for text in texts]
        return rows, [len(text) > max_length for text in texts]


def cached(source, features, folder):
    """Returns the cache of a source, prepared through seqio."""
    task = Task("t", source, "none", "none")
    fields = seqio_tasks.written_fields(features)
    examples = (unpack(one, fields) for one in seqio_tasks.examples(task, Letters(), features))
    return cache.write(task, Letters(), features, folder, examples)


def test_several_positives_and_a_longer_list_of_negatives(tmp_path):
    import pyarrow.parquet

    rows = [
        {"q": "a", "positives": ["x", "y", "z"], "wrong": ["n", "o", "p", "x"]},
        {"q": "b", "positives": ["w"], "wrong": []},
    ]
    fields = {"query": "q", "target": "positives", "negatives": "wrong"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    pandas.DataFrame(rows).to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    features = pairs(Lengths(9, 9), 2)
    for number, source in enumerate(
        [
            sources.Parquet(str(tmp_path / "t.parquet"), fields),
            sources.JsonLines(str(tmp_path / "t.jsonl"), fields),
            sources.HuggingFaceDataset(str(tmp_path / "saved"), fields),
        ]
    ):
        made = cached(source, features, tmp_path / f"cache{number}")
        assert made.columns == {"query": 1, "target": 3, "negatives": 4} and made.manifest["left_out"] == {
            "negatives": 1
        }
        examples = Examples(Mixture("m", [Task("t", source)]), [made], features, 2, 0)
        targets, negatives = [], []
        for t in range(6):
            draws = examples.drawn(t)
            for i, example in enumerate(examples.read(draws)):
                texts = {c.feature.name: [chr(x[0]) for x in c.feature.texts(example, c.columns[i])]
                         for c in examples.choose(draws, features)}  # fmt: skip
                if texts["query"] == ["a"]:
                    targets += texts["target"]
                    negatives.append(tuple(texts["negatives"]))
        assert sorted(targets[:3]) == sorted(targets[3:]) == ["x", "y", "z"]  # one an epoch, all of them in turn
        assert len(set(negatives)) > 1 and set().union(*negatives) == {"n", "o", "p"}  # of x, a positive, none


def test_a_score_or_a_label_of_each_pair(tmp_path):
    frame = pandas.DataFrame(
        {"s1": ["a", "b"], "s2": ["c", "d"], "similarity": [0.25, 1.0], "label": ["same", "other"]}
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    datasets.Dataset.from_pandas(frame).save_to_disk(tmp_path / "saved")
    fields = {"query": "s1", "target": "s2", "score": "similarity", "label": "label"}
    features = (*pairs(Lengths(9, 9))[:2], Scores("score"), Labels("label"))
    made = [
        cached(sources.TabSeparated(str(tmp_path / "t.csv"), fields), features, tmp_path / "one"),
        cached(sources.HuggingFaceDataset(str(tmp_path / "saved"), fields), features, tmp_path / "two"),
    ]
    for found in made:
        rows = found.read([0, 1])
        assert [float(row["score"]) for row in rows] == [0.25, 1.0]
        assert [int(row["label"]) for row in rows] == [content_id("same"), content_id("other")]


def test_the_scores_of_a_teacher(tmp_path):
    rows = [
        {"q": "a", "p": "b", "n": ["c", "d"], "scores": [9.5, 2.0, 1.0]},
        {"q": "e", "p": "f", "n": ["g"], "scores": [3.5]},  # a margin
    ]
    fields = {"query": "q", "target": "p", "negatives": "n", "scores": "scores"}
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    features = (*pairs(Lengths(9, 9), 2), Scores("scores", each="negatives"))
    found = cached(sources.HuggingFaceDataset(str(tmp_path / "saved"), fields), features, tmp_path / "c").read([0, 1])
    assert [row["scores"].tolist() for row in found] == [[9.5, 2.0, 1.0], [0.0, -3.5]]


def test_a_score_that_is_no_number_is_placed_and_may_be_left_out(tmp_path):
    frame = pandas.DataFrame({"s1": list("abc"), "s2": list("def"), "similarity": ["0.5", "high", ""]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    fields = {"query": "s1", "target": "s2", "score": "similarity"}
    features = (*pairs(Lengths(9, 9))[:2], Scores("score"))
    source = sources.TabSeparated(str(tmp_path / "t.csv"), fields)
    with pytest.raises(DataError, match=r"t.csv:3: field 'similarity' holds 'high', expected a finite number"):
        cached(source, features, tmp_path / "one")
    source = sources.TabSeparated(str(tmp_path / "t.csv"), fields, on_bad_record="skip", max_bad_share=0.7)
    made = cached(source, features, tmp_path / "two")
    assert len(made) == 1 and made.manifest["bad_records"]["skipped"] == 2
