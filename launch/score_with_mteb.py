"""Scores sentence-transformers folders on a suite with MTEB's own code: what others would measure, not what we do.

    python launch/score_with_mteb.py --suite=suite.json --dims=384,128,64 --output=scores.json [NAME=]FOLDER ...

Needs the packages of the extras [export] and [eval]. Prompts are the folder's own, chosen by MTEB. Smaller sizes are the first
numbers of the same embedding. Prints a table by type and by task, in percent.
"""

import argparse
import collections
import gzip
import json
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer

MAIN = {
    "retrieval": "ndcg_at_10",
    "reranking": "map_at_1000",
    "sts": "cosine_spearman",
    "pair_classification": "max_ap",
    "bitext": "f1",
    "classification": "accuracy",
    "clustering": "v_measure",
}
TYPES = {
    "retrieval": (AbsTaskRetrieval, "Retrieval"),
    "reranking": (AbsTaskRetrieval, "Reranking"),
    "sts": (AbsTaskSTS, "STS"),
    "pair_classification": (AbsTaskPairClassification, "PairClassification"),
    "bitext": (AbsTaskBitextMining, "BitextMining"),
    "classification": (AbsTaskClassification, "Classification"),
    "clustering": (AbsTaskClustering, "Clustering"),
}


def lines(path):
    with gzip.open(path, "rt", encoding="utf-8") if str(path).endswith(".gz") else open(path, encoding="utf-8") as f:
        return [line.rstrip("\n") for line in f if line.strip()]


def jsonl(path):
    return [json.loads(line) for line in lines(path)]


def tsv(path):
    header, *rows = (line.split("\t") for line in lines(path))
    return [dict(zip(header, row)) for row in rows]


def one_of(folder, name):
    return next(p for p in (folder / name, folder / f"{name}.gz") if p.is_file())


def retrieval(path):
    corpus = [{"title": "", **row} for row in jsonl(one_of(path, "corpus.jsonl"))]
    relevant = collections.defaultdict(dict)
    for row in tsv(one_of(path, "qrels.tsv")):
        relevant[row["query-id"]][row["corpus-id"]] = int(float(row["score"]))
    queries = [q for q in jsonl(one_of(path, "queries.jsonl")) if q["id"] in relevant]
    data = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries), "relevant_docs": dict(relevant)}
    return {"default": {"test": {**data, "top_ranked": None}}}


def reranking(path):
    queries, corpus, relevant, ranked = [], [], {}, {}
    for number, row in enumerate(jsonl(path)):
        query = f"q{number}"
        queries.append({"id": query, "text": row["query"]})
        documents = [(t, 1) for t in row["positives"]] + [(t, 0) for t in row["negatives"]]
        ids = [f"{query}-{i}" for i in range(len(documents))]
        corpus += [{"id": i, "title": "", "text": t} for i, (t, _) in zip(ids, documents)]
        relevant[query] = {i: grade for i, (_, grade) in zip(ids, documents)}
        ranked[query] = ids
    data = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries), "relevant_docs": relevant}
    return {"default": {"test": {**data, "top_ranked": ranked}}}


def pairs(path, label, kind):
    rows = tsv(path)
    found = {"sentence1": [r["sentence1"] for r in rows], "sentence2": [r["sentence2"] for r in rows]}
    found[label] = [kind(r["score" if label == "score" else "label"]) for r in rows]
    return DatasetDict(test=Dataset.from_dict(found))


def load(kind, path):
    if kind == "retrieval":
        return retrieval(path)
    if kind == "reranking":
        return reranking(path)
    if kind == "sts":
        return pairs(path, "score", float)
    if kind == "pair_classification":
        return pairs(path, "labels", lambda v: int(float(v)))
    if kind == "bitext":
        rows = tsv(path)
        columns = {"sentence1": [r["src"] for r in rows], "sentence2": [r["tgt"] for r in rows]}
        return DatasetDict(test=Dataset.from_dict(columns))
    if kind == "classification":
        splits = {split: jsonl(one_of(path, f"{split}.jsonl")) for split in ("train", "test")}
        labels = sorted({r["label"] for rows in splits.values() for r in rows})
        number = {label: i for i, label in enumerate(labels)}
        return DatasetDict(
            {
                s: Dataset.from_dict({"text": [r["text"] for r in rows], "label": [number[r["label"]] for r in rows]})
                for s, rows in splits.items()
            }
        )
    rows = jsonl(path)
    return DatasetDict(
        test=Dataset.from_dict({"sentences": [r["text"] for r in rows], "labels": [r["label"] for r in rows]})
    )


def make_task(entry, folder):
    kind = entry["type"]
    base, name = TYPES[kind]
    path = (folder / entry["path"]).resolve()
    metadata = TaskMetadata(
        name=entry["name"].replace("_", "-"),
        description="local files",
        type=name,
        category="t2c" if kind in ("classification", "clustering") else "t2t",
        main_score=MAIN[kind],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        dataset={"path": "local", "revision": "1"},
        modalities=["text"],
    )

    def load_data(self, num_proc=None, **kwargs):
        self.dataset, self.data_loaded = load(kind, path), True

    fields = {"metadata": metadata, "load_data": load_data}
    if kind == "sts":
        fields |= {"min_score": 0, "max_score": 5}
    if kind == "classification" and "samples_per_label" in entry:
        fields["samples_per_label"] = entry["samples_per_label"]
    if kind == "clustering":
        fields |= {"max_fraction_of_documents_to_embed": None}
    return type(name + "Local", (base,), fields)()


class Cut:
    """A model whose texts are encoded once; `dim` says how many first numbers MTEB is given."""

    def __init__(self, folder):
        self.inner = SentenceTransformerEncoderWrapper(SentenceTransformer(str(folder), device="cpu"))
        self.dim, self.seen = None, {}

    @property
    def mteb_model_meta(self):
        return mteb.models.ModelMeta.create_empty(overwrites={"name": "local/model", "revision": str(self.dim)})

    def similarity(self, a, b):
        return self.inner.similarity(a, b)

    def similarity_pairwise(self, a, b):
        return self.inner.similarity_pairwise(a, b)

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kwargs):
        texts = [t for batch in inputs for t in batch["text"]]
        key = (task_metadata.name, hf_split, prompt_type, tuple(texts))
        if key not in self.seen:
            where = {"task_metadata": task_metadata, "hf_split": hf_split, "hf_subset": hf_subset}
            self.seen[key] = np.asarray(
                self.inner.encode(inputs, **where, prompt_type=prompt_type, **kwargs), np.float32
            )
        return self.seen[key][:, : self.dim]


def score(folder, suite, dims):
    """Returns {dimension: {task: main score}}."""
    model, found = Cut(folder), {}
    content = json.loads(pathlib.Path(suite).read_text(encoding="utf-8"))
    for dim in dims:
        model.dim, found[dim] = dim, {}
        tasks = [make_task(entry, pathlib.Path(suite).parent) for entry in content["tasks"]]
        result = mteb.evaluate(
            model,
            tasks,
            cache=None,
            encode_kwargs={"batch_size": 32},
            overwrite_strategy="always",
            co2_tracker=False,
            show_progress_bar=False,
        )
        for entry, one in zip(content["tasks"], result.task_results):
            found[dim][entry["name"]] = one.get_score()
    return found, {e["name"]: group(e) for e in content["tasks"]}


def group(entry):
    return "code search" if entry.get("prompt") == "code retrieval" else entry["type"]


def table(scores, groups, dims):
    """Returns markdown: means by type, the mean of the types, and every task."""
    columns = [(name, dim) for name in scores for dim in dims]
    out = ["| | " + " | ".join(f"{n} {d}" for n, d in columns) + " |", "|---|" + "---:|" * len(columns)]

    def line(label, value):
        out.append(f"| {label} | " + " | ".join(f"{100 * value(scores[n][d]):.1f}" for n, d in columns) + " |")

    kinds = list(dict.fromkeys(groups.values()))
    mean = lambda s, kind: np.mean([s[t] for t in groups if groups[t] == kind])  # noqa: E731
    for kind in kinds:
        line(kind, lambda s, kind=kind: mean(s, kind))
    line("**mean of the types**", lambda s: np.mean([mean(s, kind) for kind in kinds]))
    for task in groups:
        line(task, lambda s, task=task: s[task])
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="[NAME=]FOLDER")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--dims", required=True)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    dims, scores, groups = [int(d) for d in arguments.dims.split(",")], {}, {}
    for given in arguments.folders:
        name, _, folder = given.rpartition("=")
        scores[name or pathlib.Path(folder).name], groups = score(folder, arguments.suite, dims)
    print(table(scores, groups, dims))
    if arguments.output:
        pathlib.Path(arguments.output).write_text(json.dumps({"scores": scores, "types": groups}, indent=2) + "\n")


if __name__ == "__main__":
    main()
