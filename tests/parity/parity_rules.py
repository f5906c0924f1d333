"""Small data of every type of task with odd cases in it: files of ours, and the same put into a task of mteb."""

import random
import sys
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from parity_tasks import TOPICS, labelled, like, sentence, several_labels, write_jsonl, write_qrels, write_tsv

SPLIT_BY_IDS = ("paired_accuracy", "robustness_at_10", "max_over_subqueries_map_at_1000")


def _subset(task) -> tuple[str, str]:
    """Returns the first subset and split of a task."""
    return task.hf_subsets[0], task.eval_splits[0]


def _put(task, data: Any, split: str | None = None) -> None:
    """Gives the task the data of its first subset."""
    subset, first = _subset(task)
    splits = data if isinstance(data, DatasetDict) else DatasetDict({split or first: data})
    task.dataset, task.data_loaded = (splits if subset == "default" else {subset: splits}), True


def ranked(folder, task, entry) -> str:
    """Documents with the ids of queries, empty ones, titles alone, equal texts; judgements of what is not there."""
    draw, grouped = random.Random(1), task.metadata.main_score in SPLIT_BY_IDS
    queries, corpus, judged = [], [], {}
    for i in range(30):
        query = f"t{i // 2}_q{i % 2 + 1}"
        text = sentence(draw)
        queries.append({"id": query, "text": text, "instruction": sentence(draw, words=3) if i % 3 else ""})
        texts = [like(draw, text, kept) for kept in (4, 3, 2, 1)]
        # The query's own text under its own id, and the same text once more under another.
        corpus += [{"id": query, "title": "", "text": text}, {"id": f"same{i}", "title": "", "text": text}]
        corpus += [
            {"id": f"d{i}-{k}", "title": sentence(draw, words=2) if k % 2 else "", "text": t}
            for k, t in enumerate(texts)
        ]
        own = {f"d{i}-{k}": draw.choice((0, 1, 1, 2)) for k in range(3)} | {query: draw.choice((0, 1))}
        judged[query] = {**own, f"gone{i}": 1} if i % 4 == 0 else own
    if grouped:
        for i in range(15):  # the queries of a group have the same judgements
            judged[f"t{i}_q2"] = judged[f"t{i}_q1"]
    else:
        del judged["t3_q1"]  # a query without a judgement
        judged["nobody"] = {"d1-1": 1}
        judged["t4_q1"] = dict.fromkeys(judged["t4_q1"], 0)
    corpus += [
        {"id": "e1", "title": "", "text": ""},
        {"id": "e2", "title": "", "text": "  "},
        {"id": "t1", "title": sentence(draw, words=2), "text": ""},
        {"id": "t2", "title": sentence(draw, words=2), "text": " \n"},
        {"id": "t3", "title": " ", "text": sentence(draw)},
    ]
    judged["t5_q1"] = {**judged["t5_q1"], "e1": 1, "t1": 2}
    if grouped:
        judged["t5_q2"] = judged["t5_q1"]
    queries.append({"id": "empty", "text": "", "instruction": ""})
    judged["empty"] = {"e2": 1}
    if task.metadata.main_score == "paired_accuracy":
        queries.pop(), judged.pop("empty")
    instructed = task.metadata.type.startswith("Instruction")
    if not instructed:
        queries = [{"id": q["id"], "text": q["text"]} for q in queries]
    lists = None
    if entry["type"] == "reranking":
        ids = [d["id"] for d in corpus]
        lists = {q["id"]: draw.sample([*draw.sample(ids, 20), *list(judged.get(q["id"], {}))], 20) for q in queries}
        lists = {q: [d for d in dict.fromkeys(own) if d in set(ids)] for q, own in lists.items()}
        lists["t6_q1"] = []
    _write_ranked(folder, queries, corpus, judged, lists)
    _put_ranked(task, queries, corpus, judged, lists)
    if task.metadata.name.startswith("IFIR"):  # its further scores are of queries called v1 to v3
        task.task_specific_scores = lambda *given, **options: {}
    return ""


def _write_ranked(folder, queries, corpus, judged, lists) -> None:
    write_jsonl(folder / "queries.jsonl", queries)
    write_jsonl(folder / "corpus.jsonl", corpus)
    write_qrels(folder / "qrels.tsv", judged)
    if lists is not None:
        write_jsonl(folder / "top_ranked.jsonl", [{"query-id": q, "corpus-ids": own} for q, own in lists.items()])


def _put_ranked(task, queries, corpus, judged, lists) -> None:
    subset, split = _subset(task)
    asked = [q for q in queries if q["id"] in judged]  # as mteb's loader does
    data = {
        "corpus": Dataset.from_list(corpus),
        "queries": Dataset.from_list(asked),
        "relevant_docs": judged,
        "top_ranked": lists,
    }
    task.dataset, task.data_loaded = {subset: {split: data}}, True


def instructed(folder, task, entry) -> str:
    draw = random.Random(2)
    queries, corpus, judged, lists, changed = [], [], {}, {}, {}
    for i in range(12):
        text, instruction = sentence(draw), sentence(draw)
        corpus += [
            {"id": f"{i}-{k}", "title": "", "text": like(draw, text if k < 6 else instruction, 3)} for k in range(12)
        ]
        relevant = [f"{i}-{k}" for k in (0, 3, 6)]
        judged[f"{i}-og"] = dict.fromkeys(relevant, 1) | {f"{i}-5": 0, f"gone{i}": 1}
        judged[f"{i}-changed"] = {d: int(d == relevant[0]) for d in relevant}
        for end, words in (("og", instruction), ("changed", like(draw, instruction, 2))):
            queries.append({"id": f"{i}-{end}", "text": text, "instruction": words})
            lists[f"{i}-{end}"] = [f"{i}-{k}" for k in draw.sample(range(11), 11)]
        changed[str(i)] = [*relevant[1:], f"{i}-11"]
    corpus.append({"id": "empty", "title": "", "text": ""})
    lists["0-og"].append("empty")
    _write_ranked(folder, queries, corpus, judged, lists)
    write_jsonl(folder / "qrel_diff.jsonl", [{"query-id": q, "corpus-ids": own} for q, own in changed.items()])
    _put_ranked(task, queries, corpus, judged, lists)
    rows = [{"query-id": q, "corpus-ids": own} for q, own in changed.items()]
    sys.modules[type(task).__module__].load_dataset = lambda *given, **options: rows
    return ""


def _pair_texts(draw, count=200):
    """Yields pairs of texts that share some words; a few are equal, and a few are empty."""
    for i in range(count):
        text = sentence(draw)
        second = text if i % 20 == 7 else "" if i % 50 == 9 else like(draw, text, i % 6)
        yield ("" if i % 50 == 11 else text), second, i % 6


def sts(folder, task, entry) -> str:
    draw, low, high = random.Random(3), task.min_score, task.max_score
    rows = [
        (a, b, low + (high - low) * min(5, max(0, kept + draw.choice((-1, 0, 0.4)))) / 5)
        for a, b, kept in _pair_texts(draw)
    ]
    write_tsv(folder / "data.tsv", ("sentence1", "sentence2", "score"), rows)
    columns = dict(zip((*task.column_names, "score"), map(list, zip(*rows))))
    _put(task, Dataset.from_dict(columns))
    return "data.tsv"


def pair_classification(folder, task, entry) -> str:
    draw = random.Random(4)
    rows = [(a, b, int(kept + draw.choice((-2, 0, 2)) > 3)) for a, b, kept in _pair_texts(draw)]
    write_tsv(folder / "data.tsv", ("sentence1", "sentence2", "label"), rows)
    names = (task.input1_column_name, task.input2_column_name, task.label_column_name)
    _put(task, Dataset.from_dict(dict(zip(names, map(list, zip(*rows))))))
    return "data.tsv"


def bitext(folder, task, entry) -> str:
    draw = random.Random(5)
    rows = [(t, like(draw, t, draw.choice((3, 4, 5)))) for t in (sentence(draw) for _ in range(150))]
    rows[3] = (rows[3][0], "")
    rows[10:20] = [(source, rows[100 + i][1]) for i, (source, _) in enumerate(rows[10:20])]
    write_tsv(folder / "data.tsv", ("src", "tgt"), rows)
    _put(task, Dataset.from_dict({"sentence1": [a for a, _ in rows], "sentence2": [b for _, b in rows]}))
    return "data.tsv"


def summarization(folder, task, entry) -> str:
    draw, rows = random.Random(6), []
    for i in range(25):
        text = sentence(draw)
        kept = [k % 6 for k in range(5 + i % 4)]
        machine = [like(draw, text, k) for k in kept]
        human = [like(draw, text, 5) for _ in range(2 + i % 3)]
        relevance = [float(draw.randint(0, 3)) + k / 3 for k in kept]
        rows.append({"text": text, "human_summaries": human, "machine_summaries": machine, "relevance": relevance})
    rows[3]["relevance"] = [2.0] * len(rows[3]["relevance"])
    rows[4]["machine_summaries"] = rows[4]["machine_summaries"][:1] * len(rows[4]["relevance"])
    rows[5]["machine_summaries"][0] = ""
    write_jsonl(folder / "data.jsonl", rows)
    names = {
        task.text_column_name: "text",
        task.human_summaries_column_name: "human_summaries",
        task.machine_summaries_column_name: "machine_summaries",
        task.relevancy_column_name: "relevance",
    }
    _put(task, Dataset.from_dict({theirs: [row[ours] for row in rows] for theirs, ours in names.items()}))
    return "data.jsonl"


def _columns(task, rows, label: str) -> Dataset:
    return Dataset.from_dict(
        {task.input_column_name: [r["text"] for r in rows], task.label_column_name: [r[label] for r in rows]}
    )


def _two_splits(folder, task, train, test, label: str) -> str:
    if task.train_split == _subset(task)[1]:  # some tasks of mteb have one split
        train = test
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "test.jsonl", test)
    splits = {task.train_split: _columns(task, train, label), _subset(task)[1]: _columns(task, test, label)}
    _put(task, DatasetDict(splits))
    return ""


def classification(folder, task, entry) -> str:
    draw = random.Random(8)
    number = lambda rows: [{**row, "label": int(row["label"].split()[-1])} for row in rows]  # noqa: E731
    train, test = number(labelled(draw, 200, 4)), number(labelled(draw, 100, 4))
    test[3]["text"], train[5]["text"], test[7] = "", " ", {**test[6]}
    if task.is_cross_validation:
        write_jsonl(folder / "all.jsonl", train[:143])
        _put(task, _columns(task, train[:143], "label"))
        return "all.jsonl"
    return _two_splits(folder, task, train, test, "label")


def multilabel(folder, task, entry) -> str:
    draw = random.Random(9)
    train, test = several_labels(draw, 200), several_labels(draw, 120)
    test[3]["text"] = ""
    return _two_splits(folder, task, train, test, "label")


def regression(folder, task, entry) -> str:
    draw, splits = random.Random(10), []
    for count in (200, 90):
        topics = [draw.randrange(6) for _ in range(count)]
        splits.append([{"text": sentence(draw, t), "value": t + draw.choice((-0.5, 0.0, 0.25, 2.0))} for t in topics])
    splits[1][4]["text"] = ""
    return _two_splits(folder, task, *splits, "value")


def clustering(folder, task, entry) -> str:
    draw, rows = random.Random(11), []
    for i in range(400):
        topic, half = draw.randrange(5), draw.randrange(2)
        words = [draw.choice(TOPICS[topic][5 * half : 5 * half + 5]) for _ in range(3)]
        label = [f"label {topic}", f"label {topic}.{half}"] if task.metadata.main_score != "ami" else f"label {topic}"
        rows.append({"text": "" if i % 97 == 3 else f"{' '.join(words)} {sentence(draw, words=2)}", "label": label})
    if not isinstance(task, AbsTaskClusteringLegacy):
        if task.max_documents_per_cluster == type(task).__mro__[1].max_documents_per_cluster:
            # The usual size of a draw takes a minute; tests/parity/test_protocols.py scores it.
            task.max_documents_per_cluster = entry["max_documents_per_cluster"] = 1000
        write_jsonl(folder / "data.jsonl", rows)
        _put(task, _columns(task, rows, "label"))
        return "data.jsonl"
    labels = [row["label"][0] for row in rows]
    ends = [(0, 120), (120, 250), (250, 390)]
    sets = [{"sentences": [r["text"] for r in rows[a:b]], "labels": labels[a:b]} for a, b in ends]
    sets.append({"sentences": ["a", "b"], "labels": ["one", "one"]})
    write_jsonl(folder / "data.jsonl", sets)
    names = {task.input_column_name: "sentences", task.label_column_name: "labels"}
    _put(task, Dataset.from_dict({theirs: [row[ours] for row in sets] for theirs, ours in names.items()}))
    return "data.jsonl"


MAKERS = {
    "retrieval": ranked,
    "reranking": ranked,
    "instruction_reranking": instructed,
    "sts": sts,
    "pair_classification": pair_classification,
    "bitext": bitext,
    "summarization": summarization,
    "classification": classification,
    "multilabel_classification": multilabel,
    "regression": regression,
    "clustering": clustering,
}
