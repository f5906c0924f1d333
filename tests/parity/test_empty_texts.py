"""Empty texts: the vectors that an evaluation gives them are those of sentence-transformers, and scores with them are mteb's."""

import json

import numpy as np
import pytest
from parity_foreign import embed, open_reported

from embed.evaluation import runner, suites
from embed.evaluation.embeddings import Embeddings
from embed.evaluation.views import View
from embed.inference import model as inference
from embed.inference import search
from embed.text import template

mteb = pytest.importorskip("mteb")
from datasets import Dataset  # noqa: E402
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", ["bert", "modernbert-plain", "embeddinggemma"])
def test_vectors_of_empty_texts_are_those_of_sentence_transformers(name, made):
    theirs = open_reported(made(name).export)[0]
    ours = inference.open_model(made(name).bundle)
    texts = ["", "  ", "a fox", "\n"]
    for prompt in ("none", "query"):
        if prompt in ours.prompts:
            head = ours.prompts[prompt].partition("{content}")[0]
            expected = theirs.encode(texts, prompt=head or None, normalize_embeddings=True)
            assert np.abs(ours.encode(texts, prompt=prompt, allow_empty=True) - expected).max() <= 1e-5


def test_scores_of_a_real_model_with_odd_documents_are_those_of_mteb(minilm, tmp_path):
    corpus = [
        {"id": "7", "title": "", "text": "School uniforms limit the freedom of pupils."},
        {"id": "8", "title": "", "text": "School uniforms save money for parents and stop bullying."},
        {"id": "9", "title": "", "text": "Vegetarian food reduces food poisoning."},
        {"id": "10", "title": "Food", "text": "Meat gives important vitamins and vegetarian food lacks them."},
        {"id": "11", "title": "", "text": ""},
        {"id": "12", "title": "A title about vegetarian food only", "text": " "},
    ]
    queries = [{"id": i, "text": next(d["text"] for d in corpus if d["id"] == i)} for i in ("7", "9")]
    queries.append({"id": "q", "text": ""})
    judged = {"7": {"8": 1, "gone": 1}, "9": {"10": 1, "12": 2}, "q": {"11": 1}, "nobody": {"7": 1}}
    folder = tmp_path / "data"
    folder.mkdir()
    for part, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # TREC's form, without a header
    (folder / "qrels.tsv").write_text("".join(f"{q} 0 {d} {g}\n" for q, own in judged.items() for d, g in own.items()))
    suite = {"tasks": [{"name": "mine", "type": "retrieval", "path": "data", "mteb_task": "ArguAna"}]}
    (tmp_path / "suite.json").write_text(json.dumps(suite))
    assert embed("convert", minilm, tmp_path / "bundle") == 0
    model = inference.open_model(tmp_path / "bundle")
    found = runner.run(
        suites.read_suite(tmp_path / "suite.json"), Embeddings(model.encode, template), [View(384)], search.top_k
    )
    task = mteb.get_task("ArguAna")
    data = {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries), "relevant_docs": judged}
    task.dataset, task.data_loaded = {"default": {"test": {**data, "top_ranked": None}}}, True
    wrapped = SentenceTransformerEncoderWrapper(SentenceTransformer(str(minilm), device="cpu"))
    theirs = task.evaluate(wrapped, "test", encode_kwargs={"batch_size": 8})["default"]
    ours = found.scores["mine"]["384"]
    # mteb rounds these scores to five digits
    assert {n: v for n, v in ours.items() if not abs(v - theirs[n]) <= 5.1e-6} == {}
    assert 0.5 < ours["ndcg_at_10"] < 1
