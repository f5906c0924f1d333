"""The file formats of tasks that compare, classify and group texts. An empty text is scored like any other, as in MTEB."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from embed.errors import DataError
from embed.evaluation import image_readers, probe_tasks
from embed.evaluation.reading import Entry, column, finite, label_of, part, remark_of_empty, some, text_or_empty
from embed.sources.lines import read_json_lines
from embed.sources.tables import read_table


def _pairs(path: pathlib.Path, first: str, second: str, value: str | None, kind: Callable):
    """Returns (first texts, second texts, values, remarks) of a tsv file."""
    left, right, values = [], [], []
    columns = ", ".join(c for c in (first, second, value) if c)
    for location, row in read_table(str(path)):
        try:
            values.append(None if value is None else kind(column(row, value, location)))
        except ValueError as e:
            raise DataError(f"{location}: needs columns {columns}, with a number in {value} ({e})") from e
        left.append(text_or_empty(column(row, first, location), first, location))
        right.append(text_or_empty(column(row, second, location), second, location))
    return some(left, path), right, values, remark_of_empty("texts", (*left, *right))


def _binary(text: str) -> int:
    if float(text) not in (0.0, 1.0):
        raise ValueError(f"{text} is neither 0 nor 1")
    return int(float(text))


def read_sts(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a tsv file with columns sentence1, sentence2, score."""
    first, second, gold, remarks = _pairs(path, "sentence1", "sentence2", "score", finite)
    return {"first": first, "second": second, "gold": gold, "remarks": remarks}


def read_pair_classification(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a tsv file with columns sentence1, sentence2, label (1 or 0); one label alone is a DataError.

    An .npz file holds images, and texts that are true of them or not (`image_readers`).
    """
    if path.suffix == ".npz":
        return image_readers.read_image_text_pairs(path, entry)
    first, second, labels, remarks = _pairs(path, "sentence1", "sentence2", "label", _binary)
    if len(set(labels)) == 1:
        raise DataError(f"{path}: every label is {labels[0]}; pairs of both kinds are needed")
    return {"first": first, "second": second, "labels": labels, "remarks": remarks}


def read_bitext(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a tsv file with columns src and tgt, each line a sentence and its translation."""
    sources_, targets, _, remarks = _pairs(path, "src", "tgt", None, str)
    return {"sources": sources_, "targets": targets, "remarks": remarks}


def read_summarization(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads lines of {"human_summaries", "machine_summaries", "relevance"}: a grade for each machine summary."""
    human, machine, gold = [], [], []
    for location, row in read_json_lines(str(path)):
        sides = [row.get("human_summaries"), row.get("machine_summaries"), row.get("relevance")]
        if not all(isinstance(s, list) and s for s in sides) or len(sides[1]) != len(sides[2]):
            raise DataError(
                f"{location}: needs lists human_summaries, machine_summaries and as many grades in relevance"
            )
        human.append([text_or_empty(t, "human_summaries", location) for t in sides[0]])
        machine.append([text_or_empty(t, "machine_summaries", location) for t in sides[1]])
        try:
            gold.append([finite(str(g)) for g in sides[2]])
        except ValueError as e:
            raise DataError(f"{location}: the grades in relevance must be numbers ({e})") from e
    remarks = remark_of_empty("summaries", (t for texts in (*human, *machine) for t in texts))
    return {"human": some(human, path), "machine": machine, "gold": gold, "remarks": remarks}


_SPLITS = "a classification task is a folder with train and test"


def _labelled(path: str, many: bool) -> tuple[list[str], list]:
    texts, labels = [], []
    for location, row in read_json_lines(path):
        label = row.get("label", row.get("labels"))
        if label is None or (isinstance(label, list) and not many):
            raise DataError(f"{location}: needs a field 'label'{'' if many else ' with one label'}")
        values = [label_of(x, location) for x in (label if isinstance(label, list) else [label])]
        texts.append(text_or_empty(row.get("text"), "text", location))
        labels.append(values if many else values[0])
    return some(texts, path), labels


def _values(path: str) -> tuple[list[str], list[float]]:
    """Returns the texts and numbers of lines of {"text", "value"}."""
    texts, values = [], []
    for location, row in read_json_lines(path):
        value = row.get("value")
        try:
            if isinstance(value, bool | str):
                raise TypeError
            values.append(finite(value))
        except (TypeError, ValueError, OverflowError) as e:
            raise DataError(f"{location}: needs a field 'value' with a finite number, not {str(value)[:40]!r}") from e
        texts.append(text_or_empty(row.get("text"), "text", location))
    return some(texts, path), values


def _splits(
    path: pathlib.Path, entry: Entry, read: Callable[[str], tuple[list[str], list]], gold: str
) -> dict[str, Any]:
    """Returns the texts and `gold` (labels or values) of the training and test files."""
    train = str(entry["train_path"]) if "train_path" in entry else part(path, _SPLITS, "train.jsonl")
    test = str(path) if path.is_file() else part(path, _SPLITS, "test.jsonl")
    fields: dict[str, Any] = {"remarks": []}
    for split, file in (("train", train), ("test", test)):
        fields[split], fields[f"{split}_{gold}"] = read(file)
        fields["remarks"] += remark_of_empty(f"{split} texts", fields[split])
    return fields


def _sampling(entry: Entry) -> dict[str, int]:
    return {"per_label": entry.get("samples_per_label", 8), "experiments": entry.get("n_experiments", 10)}


def read_classification(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with train.jsonl and test.jsonl of {"text", "label"}; a single label is a DataError.

    With is_cross_validation the texts of one file are split five times into training and test texts.
    """
    if entry.get("is_cross_validation"):
        return _cross_validated(path, entry)
    fields = _splits(path, entry, lambda file: _labelled(file, many=False), "labels")
    if len(set(fields["train_labels"])) < 2:
        raise DataError(f"{path}: the training texts have one label only; nothing can be learned from them")
    return {**fields, **_sampling(entry)}


def _cross_validated(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    for field in ("train_path", "n_experiments"):
        if field in entry:
            raise DataError(f"{path}: {field} has no effect with is_cross_validation; leave it out")
    file = str(path) if path.is_file() else part(path, _SPLITS, "test.jsonl")
    texts, labels = _labelled(file, many=False)
    if len(set(labels)) < 2 or len(texts) < 5:
        raise DataError(f"{file}: cross-validation needs five texts or more, of two labels or more")
    fields = {"train": [], "train_labels": [], "test": texts, "test_labels": labels, "cross_validated": True}
    return {**fields, "per_label": entry.get("samples_per_label", 8), "remarks": remark_of_empty("texts", texts)}


_STRATIFIED = 3000  # test texts that MTEB scores at most


def read_multilabel(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with train.jsonl and test.jsonl of {"text", "label": [...]}.

    All test texts are scored; MTEB cuts more than 3,000 by a stratified sample.
    """
    fields = _splits(path, entry, lambda file: _labelled(file, many=True), "labels")
    if len({label for labels in fields["test_labels"] for label in labels}) < 2:
        raise DataError(f"{path}: the test texts have one label only; there is nothing to tell apart")
    if (number := len(fields["test"])) > _STRATIFIED:
        fields["remarks"].append(
            f"all {number:,} test texts are scored; most tasks of MTEB score a sample of {_STRATIFIED:,}"
        )
    return {**fields, **_sampling(entry)}


_FITTED = 2048  # training texts of a regression that MTEB draws no sample of


def read_regression(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads a folder with train.jsonl and test.jsonl of {"text", "value"}; at most 2,048 training texts."""
    fields = _splits(path, entry, _values, "values")
    if len(fields["train"]) > _FITTED:
        raise DataError(
            f"{path}: {len(fields['train']):,} training texts, of which MTEB draws {_FITTED:,}; give no more than that"
        )
    if len(set(fields["test_values"])) < 2:
        raise DataError(f"{path}: all test values are equal; there is no order to find")
    return fields


def read_clustering(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    """Reads lines of {"text", "label"}; a list as label goes from coarse to fine.

    Lines of {"sentences": [...], "labels": [...]} are sets, each of which is clustered on its own: MTEB's older protocol.
    """
    first = next((row for _, row in read_json_lines(str(path))), {})
    sets = isinstance(first.get("sentences"), list)
    if entry.get("sets", sets) != sets:
        fields = (
            '{"sentences": [...], "labels": [...]}, each a set' if entry["sets"] else '{"text", "label"}, each a text'
        )
        raise DataError(f"{path}: the task needs lines of {fields}")
    return _read_sets(path, entry) if sets else _read_one_set(path, entry)


def _read_one_set(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    texts, labels = _labelled(str(path), many=True)
    if len({label_path[0] for label_path in labels if label_path}) < 2:
        raise DataError(f"{path}: the texts have one label only; there is nothing to find")
    fraction = entry.get("fraction")
    if fraction is not None and int(fraction * len(texts)) < 1:
        raise DataError(f"{path}: a fraction of {fraction} leaves none of {len(texts)} texts; raise it")
    if any(isinstance(x, str) for x in _raw_labels(path)):
        # MTEB marks a level that a text lacks by -1, which among words is one more label.
        deepest = max(map(len, labels))
        labels = [label_path + ["-1"] * (deepest - len(label_path)) for label_path in labels]
    options = {
        name: entry[name]
        for name in ("max_document_to_embed", "max_documents_per_cluster", "max_depth")
        if name in entry
    }
    return {
        "texts": texts,
        "labels": labels,
        "fraction": fraction,
        "remarks": remark_of_empty("texts", texts),
        **options,
    }


def _read_sets(path: pathlib.Path, entry: Entry) -> dict[str, Any]:
    for field in ("fraction", "max_document_to_embed", "max_documents_per_cluster", "max_depth"):
        if field in entry:
            raise DataError(f"{path}: {field} has no effect on sets of sentences; leave it out")
    if entry.get("main", "v_measure") != "v_measure":
        raise DataError(f"{path}: sets of sentences are scored by v_measure alone; leave out 'main'")
    sets, labels = [], []
    for location, row in read_json_lines(str(path)):
        sides = [row.get("sentences"), row.get("labels")]
        if not all(isinstance(side, list) and side for side in sides) or len(sides[0]) != len(sides[1]):
            raise DataError(f"{location}: needs the list 'sentences' and as many 'labels'")
        sets.append([text_or_empty(t, "sentences", location) for t in sides[0]])
        labels.append([label_of(x, location) for x in sides[1]])
    remarks = remark_of_empty("texts", (t for texts in sets for t in texts))
    return {"sets": some(sets, path), "labels": labels, "remarks": remarks, "task_class": probe_tasks.SetClustering}


def _raw_labels(path: pathlib.Path) -> Iterator[Any]:
    for _, row in read_json_lines(str(path)):
        label = row.get("label", row.get("labels"))
        yield from label if isinstance(label, list) else [label]
