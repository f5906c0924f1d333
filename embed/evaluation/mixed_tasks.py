"""Images retrieved by queries of a text and images: MMIR (arXiv:2506.02291).

The paper's metric and gallery were not at hand; both are our choice. R@1, R@5, R@10 and MRR are computed over one gallery of all
images, without the query's own images. The same scores are given for the images alone, the text alone, and the sum of both.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from embed.data.interleaved import without_masks
from embed.evaluation import pictures
from embed.evaluation.bootstrap import Sample
from embed.evaluation.embeddings import Items
from embed.evaluation.nearest import nearest_rows
from embed.evaluation.pictures import Panel
from embed.evaluation.tasks import Base, Scored, Vectors, mean
from embed.evaluation.views import View
from embed.types import Item, SearchFn

CUTS = (1, 5, 10)
_MRR_DEPTH = 100
_MAX_QUERIES, _MAX_RESULTS = (
    4,
    5,
)  # queries in the report, of the right and of the wrong ones each, and results per query
Ranks = np.ndarray  # of the first image that answers each query, from 1; inf where none is found


@dataclasses.dataclass(frozen=True)
class Query:
    """A text with `[MASK_k]` and its images.

    `targets` are the relevant rows of the gallery. `excluded` are the rows with the query's own images, which are not ranked.
    `unmasked` is the text with the names of the images instead of the masks. `groups` are what scores are split by, such as
    {'language': 'de'}.
    """

    item: Item
    targets: frozenset[int]
    excluded: frozenset[int] = frozenset()
    unmasked: str | None = None
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class MixedRetrieval(Base):
    """Queries of a text and images, and a gallery of images.

    `r1`, `r5`, `r10` and `mrr` (of the first 100) are the scores of the queries. A prefix gives those of other query vectors:
    `images/` of the sum of the images' vectors, `text/` of the text without its masks, `sum/` of both added (late fusion),
    `unmasked/` of the text with the images' names. `unfiltered/` keeps the query's own images in the gallery. `r1/1 image`,
    `images/r1/kind KIND` and the like are R@1 on a subset of the queries. `ceilings` are upper bounds of any of these scores.
    """

    type = "mixed_retrieval"
    queries: Sequence[Query]
    gallery: Sequence[Item]
    ceilings: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def _images(self) -> dict[object, int]:
        """Every image of a query once, and its row."""
        images = dict.fromkeys(image for query in self.queries for image in query.item.images)
        return {image: row for row, image in enumerate(images)}

    @property
    def _texts(self) -> dict[str, int]:
        """Every text without its masks once, and its row; those that are masks alone are not there."""
        texts = (without_masks(query.item.text) for query in self.queries)
        return {text: row for row, text in enumerate(dict.fromkeys(filter(None, texts)))}

    @property
    def _named(self) -> list[int]:
        """The queries that have an unmasked text."""
        return [row for row, query in enumerate(self.queries) if query.unmasked]

    def parts(self) -> dict[str, Items]:
        unmasked = [self.queries[row].unmasked for row in self._named]
        return {
            "queries": Items([query.item for query in self.queries], self.prompt),
            "images": Items([Item(images=(image,)) for image in self._images], "none"),
            "gallery": Items(self.gallery, "none"),
            **({"texts": Items(list(self._texts), self.prompt)} if self._texts else {}),
            **({"unmasked": Items(unmasked, self.prompt)} if unmasked else {}),
        }

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        gallery, every = vectors("gallery"), list(range(len(self.queries)))
        of_images, of_texts, has_text = self._fused(vectors)
        kinds = {
            "": (vectors("queries"), every),
            "images/": (of_images, every),
            "sum/": (of_images + of_texts, every),
            "text/": (of_texts[has_text], has_text),
        }
        if self._named:
            kinds["unmasked/"] = (vectors("unmasked"), self._named)
        scores: dict[str, float] = {}
        ranked: dict[str, tuple[Ranks, np.ndarray]] = {}
        groups = self._groups()
        for name, (queries, rows) in kinds.items():
            if len(rows):
                ranked[name] = self._ranks(_unit(queries), gallery, rows, view, search)
                ranks = ranked[name][0]
                scores |= _scores(ranks, name)
                for group, members in groups.items():
                    of_group = ranks[np.isin(rows, members)]
                    scores[f"{name}r1/{group}"] = mean(of_group <= 1)
        ranks = ranked[""][0]
        kept, _ = self._ranks(_unit(vectors("queries")), gallery, every, view, search, keep_excluded=True)
        scores |= _scores(kept, "unfiltered/")
        values = {f"r{k}": (ranks <= k).astype(float) for k in CUTS} | {"mrr": 1 / ranks}
        return Scored(scores, Sample("mean", values[self.main]), lambda: self._drawn(ranks, ranked[""][1]))

    def _fused(self, vectors: Vectors) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Returns the sums of each query's images' vectors at unit length, its text's vector, and which queries have a text.

        A text that is masks alone has the vector 0.
        """
        images, image_rows = vectors("images"), self._images
        sums = np.stack([images[[image_rows[x] for x in q.item.images]].sum(0) for q in self.queries])
        sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        of_texts, text_rows = np.zeros_like(sums), self._texts
        has_text = [row for row, q in enumerate(self.queries) if without_masks(q.item.text) in text_rows]
        if has_text:
            of_texts[has_text] = vectors("texts")[
                [text_rows[without_masks(self.queries[row].item.text)] for row in has_text]
            ]
        return sums, of_texts, has_text

    def _ranks(
        self,
        queries: np.ndarray,
        gallery: np.ndarray,
        rows: Sequence[int],
        view: View,
        search: SearchFn,
        keep_excluded: bool = False,
    ) -> tuple[Ranks, np.ndarray]:
        """Returns the ranks of the first targets, and the rows of the first results, -1 where there are fewer.

        Images with equal scores are in the order of the gallery.
        """
        max_excluded = 0 if keep_excluded else max(len(self.queries[row].excluded) for row in rows)
        depth = min(len(gallery), _MRR_DEPTH + max_excluded)
        nearest = nearest_rows(queries, gallery, view, search, depth)
        ranks = np.full(len(rows), np.inf)
        first = np.full((len(rows), _MAX_RESULTS), -1, np.int64)
        for i, (row, near) in enumerate(zip(rows, nearest.tolist())):
            query = self.queries[row]
            ranked = near if keep_excluded else [x for x in near if x not in query.excluded][:_MRR_DEPTH]
            first[i, : len(ranked[:_MAX_RESULTS])] = ranked[:_MAX_RESULTS]
            ranks[i] = next((rank for rank, x in enumerate(ranked, 1) if x in query.targets), np.inf)
        return ranks, first

    def _groups(self) -> dict[str, np.ndarray]:
        """Returns the rows of each subset of the queries, where there are several subsets of a kind."""
        parts: dict[str, dict[str, list[int]]] = {}
        for row, query in enumerate(self.queries):
            count = len(query.item.images)
            groups = {
                "images": f"{count} image{'' if count == 1 else 's'}",
                **{k: f"{k} {v}" for k, v in query.groups.items()},
            }
            for kind, name in groups.items():
                parts.setdefault(kind, {}).setdefault(name, []).append(row)
        several = (names for names in parts.values() if len(names) > 1)
        return {name: np.array(rows) for names in several for name, rows in sorted(names.items())}

    def _drawn(self, ranks: Ranks, first: np.ndarray) -> list[list[Panel]]:
        """Returns a few queries with their first results, queries with the right first result before the others."""
        right, wrong = np.flatnonzero(ranks == 1), np.flatnonzero(ranks != 1)
        rows = []
        for row in [*_spread(right), *_spread(wrong)]:
            query = self.queries[row]
            panels = [
                Panel(
                    f"query, [MASK_{k}]", pictures.thumbnail(pictures.opened(image)), query.item.text if not k else ""
                )
                for k, image in enumerate(query.item.images)
            ]
            for rank, x in enumerate(first[row], 1):
                if x >= 0:
                    image = pictures.thumbnail(pictures.opened(self.gallery[x].images[0]))
                    panels.append(Panel(f"{rank}.", image, "", int(x) in query.targets))
            rows.append(panels)
        return rows


def _spread(rows: np.ndarray) -> np.ndarray:
    """Returns up to _MAX_QUERIES of some rows, at equal distances."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, _MAX_QUERIES).astype(int))] if len(rows) else rows


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors at unit length in float32."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _scores(ranks: Ranks, prefix: str = "") -> dict[str, float]:
    scores: dict[str, Callable[[], float]] = {
        **{f"r{k}": lambda k=k: mean(ranks <= k) for k in CUTS},
        "mrr": lambda: mean(1 / ranks),
    }
    return {prefix + name: score() for name, score in scores.items()}
