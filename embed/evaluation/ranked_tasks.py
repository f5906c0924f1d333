"""Tasks that rank documents by a query."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from embed.errors import UsageError
from embed.evaluation import pictures, query_groups, ranking
from embed.evaluation.bootstrap import Sample
from embed.evaluation.embeddings import Items
from embed.evaluation.nearest import products, rankings_of
from embed.evaluation.pictures import Panel
from embed.evaluation.tasks import Base, Scored, Vectors, mean
from embed.evaluation.views import View
from embed.types import Item, SearchFn

# Where a sentence ends when NLTK's own model is not there.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])")


@dataclasses.dataclass(frozen=True)
class _Judged(Base):
    query_ids: list[str]
    queries: list[str | Item]
    corpus_ids: list[str]
    corpus: list[str | Item]
    titles: list[str] | None
    qrels: Mapping[str, Mapping[str, float]]
    rules: ranking.Rules = dataclasses.field(default=ranking.Rules(), kw_only=True)

    def reranked(self, candidates: Mapping[str, Sequence[str]], queries: np.ndarray, stored: np.ndarray):
        """Returns {query: {candidate: score}}, best first; `queries` and `stored` are the vectors as they are compared.

        A query without candidates has an empty ranking.
        """
        index = {d: i for i, d in enumerate(self.corpus_ids)}
        rankings = {}
        for query, vector in zip(self._ranked_queries, queries, strict=True):
            ids = list(dict.fromkeys(candidates.get(query, ())))
            rankings[query] = ranking.scored(ids, products(stored[[index[d] for d in ids]], vector))
        return rankings

    @property
    def _ranked_queries(self) -> list[str]:
        return self.query_ids


@dataclasses.dataclass(frozen=True)
class Retrieval(_Judged):
    """Queries, a corpus, and which documents answer which query. With `candidates` only those of each query are ranked."""

    type = "retrieval"
    candidates: Mapping[str, Sequence[str]] | None = dataclasses.field(default=None, kw_only=True)

    @property
    def asked(self) -> list[int]:
        """The queries that have a judgement; the others are left out, as in MTEB."""
        return [i for i, q in enumerate(self.query_ids) if self.qrels.get(q)]

    @property
    def _ranked_queries(self) -> list[str]:
        return [self.query_ids[i] for i in self.asked]

    def parts(self) -> dict[str, Items]:
        return {
            "queries": Items([self.queries[i] for i in self.asked], self.prompt),
            "corpus": Items(self.corpus, "document", self.titles),
        }

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        queries, corpus = vectors("queries"), vectors("corpus")
        if self.candidates is not None:
            return self.of_rankings(self.reranked(self.candidates, view.queries(queries), view.documents(corpus)))
        names, depth = self._ranked_queries, self.rules.depth
        return self.of_rankings(rankings_of(names, self.corpus_ids, queries, corpus, view, search, depth))

    def rows(self, kept: Mapping[str, Mapping[str, float]]) -> list[list[Panel]]:
        """Returns a few queries with what they found, best first."""
        asked = self.asked
        chosen = np.unique(np.linspace(0, len(asked) - 1, _PICTURES).astype(int)) if asked else []
        index = {name: row for row, name in enumerate(self.corpus_ids)}
        rows = []
        for row in (asked[i] for i in chosen):
            query = self.query_ids[row]
            relevant = self.qrels.get(query, {})
            best = list(kept.get(query, {}).items())[:_FOUND]
            panels = [_panel(self.queries[row], "query", None)]
            for place, (document, value) in enumerate(best):
                is_right = relevant.get(document, 0) > 0
                panels.append(_panel(self.corpus[index[document]], f"{place + 1}. {value:.2f}", is_right))
            rows.append(panels)
        return rows

    def of_rankings(self, rankings: Mapping[str, Mapping[str, float]]) -> Scored:
        """Returns the scores of {query: {document: score}}, best first."""
        kept = {query: self.rules.kept(query, retrieved) for query, retrieved in rankings.items()}
        values = ranking.scores(kept, self.qrels, self.rules.k_values)
        if self.main not in values:
            values[self.main] = query_groups.values(self.main, kept, self.qrels, self.rules.k_values)
        scored = _ranked(values, self.main)
        if not any(isinstance(item, Item) and item.images for item in (*self.queries[:1], *self.corpus[:1])):
            return scored
        return dataclasses.replace(scored, pictures=lambda: self.rows(kept))


_PICTURES, _FOUND = 6, 5  # queries that are drawn, and documents of each


def _panel(item: str | Item, label: str, is_right: bool | None) -> Panel:
    """Returns the panel of a query or document."""
    item = item if isinstance(item, Item) else Item(item)
    png = pictures.thumbnail(pictures.opened(item.images[0])) if item.images else None
    return Panel(label, png, (item.text or "")[:160], is_right)


@dataclasses.dataclass(frozen=True)
class RankedCandidates(Retrieval):
    """Queries, each with some documents of a corpus to rank: MTEB's form of reranking."""

    type = "reranking"


def _ranked(values: Mapping[str, np.ndarray], main: str) -> Scored:
    return Scored({name: mean(v) for name, v in values.items()}, Sample("mean", values[main]))


@dataclasses.dataclass(frozen=True)
class Reranking(Base):
    """Queries, each with candidates of its own; `relevant` says which of them answer it.

    Candidates are told apart by a hash of their text: MTEB orders equal scores by the place in the file, which gives a
    constant model 90 where the answers stand first.
    """

    type = "reranking"
    queries: list[str]
    candidates: list[list[str]]
    relevant: list[list[bool]]
    rules: ranking.Rules = dataclasses.field(default=ranking.Rules(), kw_only=True)

    def parts(self) -> dict[str, Items]:
        return {
            "queries": Items(self.queries, self.prompt),
            "candidates": Items([c for texts in self.candidates for c in texts], "document"),
        }

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        queries, stored = view.queries(vectors("queries")), view.documents(vectors("candidates"))
        starts = np.cumsum([0, *map(len, self.candidates)])
        return self.of_scores([products(stored[a:b], q) for a, b, q in zip(starts, starts[1:], queries)])

    def of_scores(self, scores: Sequence[Sequence[float]]) -> Scored:
        """Returns the scores of the order that each query's candidates take by their similarities."""
        rankings, qrels = {}, {}
        for i, (candidates, relevant, query_scores) in enumerate(zip(self.candidates, self.relevant, scores)):
            ids = [f"{_hash(text)}-{k}" for k, text in enumerate(candidates)]
            rankings[str(i)] = self.rules.kept(str(i), ranking.scored(ids, query_scores))
            qrels[str(i)] = {identity: float(is_so) for identity, is_so in zip(ids, relevant)}
        return _ranked(ranking.scores(rankings, qrels, self.rules.k_values), self.main)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclasses.dataclass(frozen=True)
class InstructionReranking(_Judged):
    """Queries with an instruction, once as it was ('-og') and once turned against some documents ('-changed').

    `candidates` are the documents to rank for each query id, `changed` those that the new instruction makes irrelevant,
    by the query's id without its ending.
    """

    type = "instruction_reranking"
    candidates: Mapping[str, Sequence[str]]
    changed: Mapping[str, Sequence[str]]

    def parts(self) -> dict[str, Items]:
        return {"queries": Items(self.queries, self.prompt), "corpus": Items(self.corpus, "document", self.titles)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        queries, stored = view.queries(vectors("queries")), view.documents(vectors("corpus"))
        rankings = {q: self.rules.kept(q, r) for q, r in self.reranked(self.candidates, queries, stored).items()}
        before, after = (
            {q.removesuffix(end): list(r) for q, r in rankings.items() if q.endswith(end)}
            for end in ("-og", "-changed")
        )
        moved = ranking.instruction_change(before, after, self.changed)
        values = {n: mean(v) for n, v in ranking.scores(rankings, self.qrels, self.rules.k_values).items()}
        return Scored({"p-MRR": mean(moved), **values}, Sample("mean", moved))


@dataclasses.dataclass(frozen=True)
class _Questions(Base):
    questions: list[str]
    question_languages: list[str]
    corpus: list[str]
    titles: list[str]

    def parts(self) -> dict[str, Items]:
        return {"questions": Items(self.questions, self.prompt), "corpus": Items(self.corpus, "document", self.titles)}


@dataclasses.dataclass(frozen=True)
class OpenRetrieval(_Questions):
    """Questions in many languages whose answers must stand in the first words of the passages found (XOR-Retrieve)."""

    type = "xor_retrieve"
    answers: list[list[str]]

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        ids = [str(i) for i in range(len(self.corpus))]
        names = [str(i) for i in range(len(self.questions))]
        rankings = rankings_of(names, ids, vectors("questions"), vectors("corpus"), view, search, max(ranking.CUTS))
        words: dict[str, list[str]] = {}
        values = {}
        for limit in (2000, 5000):
            hits = []
            for i, answers in enumerate(self.answers):
                passages = []
                for d in rankings[str(i)]:
                    if d not in words:
                        words[d] = word_tokens(self.corpus[int(d)])
                    passages.append(words[d])
                    if sum(map(len, passages)) >= limit:
                        break
                hits.append(float(ranking.answer_within(passages, answers, limit)))
            values[f"recall_at_{limit // 1000}kt"] = np.array(hits)
        return _by_language(values, self.question_languages, self.main)


def word_tokens(text: str) -> list[str]:
    """Returns the words of a text as the published script counts them: NLTK's, sentence by sentence.

    NLTK's sentence model is a download of its own; without it sentences end at .!? before a capital letter.
    """
    try:
        import nltk
    except ImportError as e:
        raise UsageError("XOR-Retrieve counts words with NLTK; run: pip install 'embed[xor]'") from e
    try:
        return nltk.word_tokenize(text)
    except LookupError:
        words = nltk.tokenize.NLTKWordTokenizer().tokenize
        return [w for sentence in _SENTENCE_END.split(text) for w in words(sentence)]


@dataclasses.dataclass(frozen=True)
class MultilingualRetrieval(_Questions):
    """Questions in many languages, each answered by one passage of a common corpus (XTREME-UP). Scored language by language."""

    type = "xtreme_up"
    targets: list[str]
    corpus_ids: list[str]

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        names = [str(i) for i in range(len(self.questions))]
        rankings = rankings_of(
            names, self.corpus_ids, vectors("questions"), vectors("corpus"), view, search, max(ranking.CUTS)
        )
        values = np.array(
            [ranking.reciprocal_rank(list(rankings[q]), {target: 1.0}, 10) for q, target in zip(names, self.targets)]
        )
        return _by_language({"mrr_at_10": values}, self.question_languages, self.main)


def _by_language(values: Mapping[str, np.ndarray], languages: Sequence[str], main: str) -> Scored:
    """Returns the means over the languages' means, and each language's own."""
    names, number = np.unique(languages, return_inverse=True)
    scores = {}
    for name, score in values.items():
        means = {str(lang): mean(score[number == i]) for i, lang in enumerate(names)}
        scores[name] = mean(np.array(list(means.values())))
        scores |= {f"{name}/{language}": value for language, value in means.items()}
    return Scored(scores, Sample("macro_mean", values[main], number))
