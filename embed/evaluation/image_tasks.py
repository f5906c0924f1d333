"""Tasks of images, and of images and texts, by the protocols of MIEB (arXiv:2504.10471): MTEB's own for images."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from embed.evaluation import probes
from embed.evaluation.bootstrap import Sample
from embed.evaluation.embeddings import Items
from embed.evaluation.paired_tasks import Sts
from embed.evaluation.probe_tasks import Classification
from embed.evaluation.ranked_tasks import Retrieval
from embed.evaluation.tasks import Base, Scored, Vectors, mean
from embed.evaluation.views import View
from embed.types import Item, SearchFn

_DRAWN = 2  # subsets whose queries are drawn


@dataclasses.dataclass(frozen=True)
class SubsetRetrieval(Base):
    """Texts or images and the images that they find, in subsets such as languages. The score is the mean of the subsets'."""

    type = "image_retrieval"
    subsets: Mapping[str, Retrieval]

    def parts(self) -> dict[str, Items]:
        return {f"{part} {name}": items for name, task in self.subsets.items() for part, items in task.parts().items()}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        scored = {
            name: task.score(lambda part, name=name: vectors(f"{part} {name}"), view, search)
            for name, task in self.subsets.items()
        }
        first = next(iter(scored.values())).scores
        scores = {}
        for metric in first:
            values = {name: one.scores[metric] for name, one in scored.items()}
            scores[metric] = mean(np.array(list(values.values())))
            if len(scored) > 1:
                scores |= {f"{metric}/{name}": value for name, value in values.items()}
        samples = [one.sample.values for one in scored.values()]
        groups = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
        drawn = {name: one.pictures for name, one in scored.items() if one.pictures is not None}
        rows = lambda: [row for draw in list(drawn.values())[:_DRAWN] for row in draw()]  # noqa: E731
        sample = Sample("macro_mean", np.concatenate(samples), groups)
        return Scored(scores, sample, rows if drawn else None)


class ImageTextRetrieval(SubsetRetrieval):
    """Images, and the texts that they find."""

    type = "image_text_retrieval"


class VisualSts(Sts):
    """Pairs of images of texts and how similar people found those."""

    type = "visual_sts"


NEIGHBOURS, NEIGHBOUR_TEMPERATURE = 20, 0.07  # of DINO's protocol, arXiv:2104.14294


@dataclasses.dataclass(frozen=True)
class ImageClassification(Classification):
    """Images with a label each: MTEB's logistic regression of a few, and nearest neighbours among all training images.

    `nearest_accuracy` takes the label of the nearest one. For `knn_accuracy` the 20 nearest vote, each with the exponential of its
    cosine over 0.07.
    """

    type = "image_classification"
    per_label: int = 16
    experiments: int = 5

    def parts(self) -> dict[str, Items]:
        return {"train": Items(self.train, self.prompt), "test": Items(self.test, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        used = sorted({row for rows in self._draws() for row in rows})
        linear = super().score(lambda part: vectors(part)[used] if part == "train" else vectors(part), view, search)
        train, test = view.documents(vectors("train")), view.documents(vectors("test"))
        labels, gold = probes.label_numbers(self.train_labels, self.test_labels)
        cosines, rows = search(test, train, min(NEIGHBOURS, len(train)))
        votes = np.zeros((len(test), max(labels.max(), gold.max()) + 1))
        weights = np.exp((cosines - cosines[:, :1]) / NEIGHBOUR_TEMPERATURE)
        np.add.at(votes, (np.arange(len(test))[:, None], labels[rows]), weights)
        right = {"nearest_accuracy": labels[rows[:, 0]] == gold, "knn_accuracy": votes.argmax(1) == gold}
        scores = linear.scores | {name: mean(values) for name, values in right.items()}
        sample = Sample("mean", right[self.main].astype(float)) if self.main in right else linear.sample
        return Scored(scores, sample)


@dataclasses.dataclass(frozen=True)
class ZeroShotClassification(Base):
    """Images, each of which belongs to one of some texts: the nearest one is the prediction. `gold` are positions of texts."""

    type = "zero_shot_classification"
    images: Sequence[Item]
    gold: Sequence[int]
    candidates: Sequence[str]

    def parts(self) -> dict[str, Items]:
        return {"images": Items(self.images, "none"), "candidates": Items(self.candidates, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        images, candidates = view.queries(vectors("images")), view.documents(vectors("candidates"))
        predicted, gold = (images @ candidates.T).argmax(1), np.asarray(self.gold)
        scores = probes.class_scores(gold, predicted)
        scores.pop("ap", None)  # of predictions; MTEB computes it of similarities
        return Scored(scores, Sample("mean", (predicted == gold).astype(float)))


@dataclasses.dataclass(frozen=True)
class ImageClustering(Base):
    """Images with a label each, which one run of k-means has to find again."""

    type = "image_clustering"
    images: Sequence[Item]
    labels: Sequence[str]

    def parts(self) -> dict[str, Items]:
        return {"images": Items(self.images, self.prompt)}

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        (gold,) = probes.label_numbers(self.labels)
        scores, predicted = probes.one_clustering(view.documents(vectors("images")), gold)
        if self.main == "nmi":
            return Scored(scores, Sample("nmi", predicted, gold))
        return Scored(scores, Sample("mean", (probes.best_names(predicted, gold) == gold).astype(float)))


@dataclasses.dataclass(frozen=True)
class Compositionality(Base):
    """Rows of images and texts of which the first belong together, the second, and so on.

    `text_acc`: every image is nearest to its own text among those of the row; `image_acc`: every text to its own image.
    """

    type = "compositionality"
    images: Sequence[Sequence[Item]]
    texts: Sequence[Sequence[str]]

    def parts(self) -> dict[str, Items]:
        return {
            "images": Items([image for row in self.images for image in row], "none"),
            "texts": Items([text for row in self.texts for text in row], self.prompt),
        }

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        images, texts = (
            x.reshape(len(self.images), -1, x.shape[-1])
            for x in (view.queries(vectors("images")), view.documents(vectors("texts")))
        )
        cosines = np.einsum("rid,rtd->rit", images, texts)
        text_right = (cosines.argmax(2) == np.arange(images.shape[1])).all(1)
        image_right = (cosines.argmax(1) == np.arange(texts.shape[1])).all(1)
        right = {"text_acc": text_right, "image_acc": image_right, "accuracy": text_right & image_right}
        scores = {name: mean(values) for name, values in right.items()}
        return Scored(scores, Sample("mean", right[self.main].astype(float)))
