"""The Hub's public sets read by the real package `datasets`, from folders that hold a few rows of the published schemas."""

import json

import pytest

pytest.importorskip("datasets")

from embed.data import public_sets
from embed.sources.beir import HuggingFaceBeir
from embed.sources.datasets import HuggingFaceDataset

BODY = "a body of text that is long enough to be kept, " * 8
ROWS = {
    "sentence-transformers/natural-questions": {"query": "who", "answer": "she"},
    "sentence-transformers/hotpotqa": {"anchor": "who", "positive": "she", "negative": "he"},
    "sentence-transformers/msmarco-bm25": {"query": "who", "positive": "she", "negative": "he"},
    "sentence-transformers/miracl": {"anchor": "who", "positive": "she", "negative": "he"},
    "sentence-transformers/codesearchnet": {"comment": "adds", "code": "def add(a, b): ..."},
    "allenai/c4": {"text": f"A title of a page\n{BODY}", "timestamp": "2019-04-25T12:57:54Z", "url": "https://example.org"},
    "wikimedia/wikipedia": {"id": "7", "url": "https://example.org", "title": "Ada", "text": BODY},
    "openlifescienceai/medmcqa": {
        "id": "a", "question": "Which?", "opa": "one", "opb": "two", "opc": "three", "opd": "four", "cop": 2,
        "choice_type": "single", "exp": None, "subject_name": "s", "topic_name": "t",
    },
}  # fmt: skip
NEGATIVES = {"BM25": 1, "mined": 1, "judged": 1, "wrong options": 3}


def publish(folder, configs):
    """Writes a dataset's folder: {(config, split): rows}, named in the card as the Hub's are."""
    folder.mkdir(parents=True)
    card = ["---", "configs:"]
    for (config, split), rows in configs.items():
        (folder / config).mkdir(exist_ok=True)
        (folder / config / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        card += [
            f'- config_name: "{config}"',
            "  data_files:",
            f"  - split: {split}",
            f"    path: {config}/{split}.jsonl",
        ]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Stand-ins of the Hub's sets under the working folder, where `datasets` looks first."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


HUB = [s for s in public_sets.SETS if s.page.startswith("Hub ") and s.name != "fever"]


ONE_OF_EACH = [s for s in HUB if s.kind not in ("web", "language diversity") or s.name.endswith(("_en", "_sw"))]


@pytest.mark.parametrize("one", ONE_OF_EACH, ids=lambda s: s.name)
def test_a_set_is_read_with_the_published_schema(one, hub):
    source = one.source
    while not isinstance(source, HuggingFaceDataset):
        source = source.source
    publish(hub / source.name, {(source.config or "default", "train"): [ROWS[source.name]] * 3})
    (_, first), *others = one.source.examples()
    assert len(others) == 2 and first["query"] and first["target"]
    assert len(first.get("negatives", [])) == NEGATIVES.get(one.negatives, 0)


def test_a_retrieval_set_in_the_layout_of_mteb(hub):
    (fever,) = [s for s in public_sets.SETS if s.name == "fever"]
    corpus = [{"_id": f"d{i}", "title": "" if i else "T", "text": f"text {i}"} for i in range(3)]
    queries = [{"_id": f"q{i}", "text": f"claim {i}"} for i in range(3)]
    judged = [{"query-id": "q1", "corpus-id": "d0", "score": 1.0}, {"query-id": "q2", "corpus-id": "d2", "score": 0.0},
              {"query-id": "q1", "corpus-id": "d2", "score": 1.0}]  # fmt: skip
    parts = {("corpus", "corpus"): corpus, ("queries", "queries"): queries, ("default", "train"): judged}
    publish(hub / "mteb" / "fever", parts)
    source = HuggingFaceBeir(fever.source.name)  # a folder has no revisions
    assert [record for _, record in source.examples()] == [
        {"query": "claim 1", "target": "text 0", "title": "T"},
        {"query": "claim 1", "target": "text 2", "title": ""},
    ]
