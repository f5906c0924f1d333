"""Files of every type of task with generated texts, and mteb's tasks for such files."""

import importlib.util
import json
import os
import pathlib
import random
from unittest import mock

from datasets import Dataset, DatasetDict
from mteb._evaluators import retrieval_metrics
from mteb.abstasks import AbsTaskMultilabelClassification, AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.summarization import AbsTaskSummarization

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def launch_script():
    """Returns launch/score_with_mteb.py, which makes local files into tasks of mteb; the environment it sets is set back."""
    spec = importlib.util.spec_from_file_location("score_with_mteb", REPOSITORY / "launch" / "score_with_mteb.py")
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(os.environ):
        spec.loader.exec_module(module)
    return module


local = launch_script()


class Summarization(AbsTaskSummarization):
    """Has the grades of the files below."""

    min_score, max_score = 0, 5

    def load_files(self, path):
        rows = local.jsonl(path)
        columns = ("text", "human_summaries", "machine_summaries", "relevance")
        return DatasetDict(test=Dataset.from_dict({c: [r.get(c, "") for r in rows] for c in columns}))


class Multilabel(AbsTaskMultilabelClassification):
    """Has files like those of classification, with a list as label."""

    def load_files(self, path):
        splits = {split: local.jsonl(local.one_of(path, f"{split}.jsonl")) for split in ("train", "test")}
        return DatasetDict(
            {s: Dataset.from_dict({c: [r[c] for r in rows] for c in ("text", "label")}) for s, rows in splits.items()}
        )


class InstructionReranking(AbsTaskRetrieval):
    """Scores as mteb's Core17InstructionRetrieval does, whose lists of changed documents come from a download."""

    def load_files(self, path):
        self.changed = {r["query-id"]: r["corpus-ids"] for r in local.jsonl(path / "qrel_diff.jsonl")}
        data = local.retrieval(path)
        ranked = {r["query-id"]: r["corpus-ids"] for r in local.jsonl(path / "top_ranked.jsonl")}
        data["default"]["test"]["top_ranked"] = ranked
        return data

    def task_specific_scores(self, scores, qrels, results, hf_split, hf_subset):
        return retrieval_metrics.evaluate_p_mrr_change(qrels, results, self.changed, self.k_values)


LACKING = {
    "summarization": (Summarization, "Summarization", "cosine_spearman"),
    "multilabel_classification": (Multilabel, "MultilabelClassification", "accuracy"),
    "instruction_reranking": (InstructionReranking, "InstructionReranking", "p-MRR"),
}


RULES = {"ignore_identical_ids", "skip_first_result", "k_values"}  # of a suite's entry, by mteb's own names


def their_task(entry, folder):
    """Returns mteb's task of a suite's entry: the script's, or one of the types that it lacks."""
    if entry["type"] not in LACKING:
        task = local.make_task(entry, folder)
        if "fraction" in entry:
            task.max_fraction_of_documents_to_embed = entry["fraction"]
        for rule in RULES & entry.keys():
            setattr(task, rule, entry[rule])
        if "k_values" in entry:
            task._top_k = max(entry["k_values"])
        return task
    base, name, main = LACKING[entry["type"]]
    metadata = TaskMetadata(
        name=entry["name"],
        description="local files",
        type=name,
        category="t2c" if entry["type"] == "multilabel_classification" else "t2t",
        main_score=main,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        dataset={"path": "local", "revision": "1"},
        modalities=["text"],
    )

    def load_data(self, num_proc=None, **kwargs):
        self.dataset, self.data_loaded = self.load_files(folder / entry["path"]), True

    fields = {k: entry[k] for k in ("samples_per_label",) if k in entry}
    return type(f"{name}Local", (base,), {"metadata": metadata, "load_data": load_data, **fields})()


# Generated texts. Each has words of a topic, so that scores are neither those of chance nor perfect.
TOPICS = [[f"{letter}{i}" for i in range(10)] for letter in "abcdef"]
ALL = [word for topic in TOPICS for word in topic]


def sentence(draw: random.Random, topic: int | None = None, words: int = 6) -> str:
    """Returns words, half of them of the topic, and a number that makes the sentence one of a kind."""
    own = ALL if topic is None else TOPICS[topic]
    return " ".join(draw.choice(own if i % 2 else ALL) for i in range(words)) + f" {draw.random():.9f}"


def like(draw: random.Random, text: str, kept: int = 4) -> str:
    """Returns another sentence with some words of `text`."""
    return " ".join([*draw.sample(text.split()[:6], kept), sentence(draw, words=6 - kept)])


def write_jsonl(path, rows) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_tsv(path, header, rows) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]), encoding="utf-8")


def write_qrels(path, qrels) -> None:
    write_tsv(path, ("query-id", "corpus-id", "score"), [(q, d, g) for q, own in qrels.items() for d, g in own.items()])


def make_retrieval(folder, titles=False, untidy=False, documents=1200, queries=40):
    """Writes more documents than are ranked, and queries with graded judgements, some of which have none."""
    draw = random.Random(1)
    corpus, asked, qrels = [], [], {}
    for i in range(documents):
        asked_of = i % queries
        if i < queries:
            asked.append({"id": f"n{i}", "text": sentence(draw)})
        text = sentence(draw) if i % 3 else like(draw, asked[asked_of]["text"], draw.choice((2, 3, 4)))
        # Some ids are those of queries too.
        corpus.append({"id": f"n{i}", "text": text, **({"title": sentence(draw, words=2)} if titles and i % 2 else {})})
        if i % 3 == 0 and i % 5:
            qrels.setdefault(f"n{asked_of}", {})[f"n{i}"] = draw.choice((-1, 0, 1, 2, 3))
    assert len(qrels) < queries
    for own in qrels.values():
        own[f"n{draw.randrange(documents)}"] = 1
    if untidy:
        # é in two code points, and white space that no model is shown
        for row in corpus + asked:
            row["text"] = f"  {row['text']} cafe\u0301 \n"
    write_jsonl(folder / "queries.jsonl", asked)
    write_jsonl(folder / "corpus.jsonl", corpus)
    write_qrels(folder / "qrels.tsv", qrels)


def sts_rows(draw):
    """Returns pairs whose grades stand for the words they share; many have the same grade."""
    rows = []
    for i in range(300):
        first, kept = sentence(draw), i % 6
        rows.append((first, like(draw, first, kept), max(0, kept + draw.choice((-1, 0, 0.4)))))
    return rows


def pair_rows(draw):
    rows = []
    for i in range(300):
        first, kept = sentence(draw), i % 6
        rows.append((first, like(draw, first, kept), int(kept + draw.choice((-2, 0, 2)) > 3)))
    return rows


def labelled(draw, rows, labels):
    """Returns rows of {text, label}, of which every fifth has a wrong label."""
    found = []
    for i in range(rows):
        topic = draw.randrange(labels)
        found.append({"text": sentence(draw, topic), "label": f"label {topic if i % 5 else draw.randrange(labels)}"})
    return found


def several_labels(draw, rows):
    """Returns rows of {text, label}, with no label up to three."""
    found = []
    for _ in range(rows):
        topics = draw.sample(range(5), draw.choice((0, 1, 1, 2, 3)))
        words = [draw.choice(TOPICS[t]) for t in topics for _ in range(3)]
        found.append({"text": f"{' '.join(words)} {sentence(draw, words=2)}", "label": [f"label {t}" for t in topics]})
    return found


def clustering_rows(draw, label):
    """Returns rows with what `label(topic, half of the topic)` gives as label."""
    rows = []
    for _ in range(400):
        topic, half = draw.randrange(5), draw.randrange(2)
        words = [draw.choice(TOPICS[topic][5 * half : 5 * half + 5]) for _ in range(3)]
        rows.append({"text": f"{' '.join(words)} {sentence(draw, words=2)}", "label": label(topic, half)})
    return rows


def make_instruction_reranking(folder, left_over=1):
    """Writes queries whose changed instruction makes all but `left_over` of their relevant documents irrelevant."""
    draw = random.Random(11)
    corpus, queries, qrels, ranked, changed = [], [], {}, [], []
    for q in range(15):
        text, instruction = sentence(draw), sentence(draw)
        # The first documents are about the query, the last about the instruction, which the changed one turns away from.
        for i in range(25):
            row = {"id": f"{q}-{i}", "text": like(draw, text if i < 12 else instruction, draw.choice((1, 2, 3)))}
            corpus.append({**row, "title": sentence(draw, words=2)} if i % 2 else row)
        candidates = [f"{q}-{i}" for i in range(24)]
        relevant = [f"{q}-{i}" for i in (0, 3, 12, 15)]
        moved = relevant[left_over:]
        qrels[f"{q}-og"] = dict.fromkeys(relevant, 1) | {f"{q}-5": 0}
        qrels[f"{q}-changed"] = {d: int(d not in moved) for d in relevant} | {f"{q}-5": 0}
        for end, words in (("og", instruction), ("changed", like(draw, instruction, 2))):
            queries.append({"id": f"{q}-{end}", "text": text, "instruction": words})
            ranked.append({"query-id": f"{q}-{end}", "corpus-ids": draw.sample(candidates, len(candidates))})
        # The last document is in no list of candidates: it counts as behind them.
        changed.append({"query-id": str(q), "corpus-ids": [*moved, f"{q}-24"]})
    write_jsonl(folder / "queries.jsonl", queries)
    write_jsonl(folder / "corpus.jsonl", corpus)
    write_jsonl(folder / "top_ranked.jsonl", ranked)
    write_jsonl(folder / "qrel_diff.jsonl", changed)
    write_qrels(folder / "qrels.tsv", qrels)
