"""Files of pairs as pandas, pyarrow and `datasets` write them, read as records."""

import pytest

pandas = pytest.importorskip("pandas")
datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")

from embed.data import sources  # noqa: E402
from embed.data.folders import task_per_file  # noqa: E402
from embed.errors import DataError  # noqa: E402

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
