"""Tasks of pixels: what an image tower's patches know of classes, depths and directions, by `dense`'s maps."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from embed import image_bytes
from embed.errors import DataError, UsageError
from embed.evaluation import dense, pictures, zero_shot
from embed.evaluation.bootstrap import Sample
from embed.evaluation.embeddings import Items
from embed.evaluation.pictures import Panel
from embed.evaluation.tasks import Base, Scored, Vectors
from embed.evaluation.views import View
from embed.types import Item, PatchFn, SearchFn

MAPS = ("classes", "depth", "normals")
DEPTH_UNIT = 1000.0  # of a map of depths, in what is scored
IGNORED = 255  # a class that no score counts


@dataclasses.dataclass(frozen=True)
class Dense(Base):
    """Images with a map of classes each, and maybe of depths and normals; `train_maps` and `test_maps` are paths by kind of map.

    `miou` is that of a balanced logistic regression, `miou_ridge` that of a ridge regression of the classes' shares. `depth_rmse`
    is in the unit of the map over 1,000, `normals_degrees` an angle, and `ari` the agreement of clusters with classes. Where
    classes have names (`labels`, by number) and the model embeds texts, `zero_shot_miou` is that of the names alone
    (`zero_shot.maps`).
    """

    type = "dense"
    train: Sequence[Item]
    train_maps: Mapping[str, Sequence[pathlib.Path]]
    test: Sequence[Item]
    test_maps: Mapping[str, Sequence[pathlib.Path]]
    labels: Mapping[int, Sequence[str]] | None = None

    def parts(self) -> dict[str, Items]:
        """Returns the names of classes, class by class, where they have some: images are not embedded as a whole."""
        if self.labels is None:
            return {}
        return {"names": Items([text for texts in self._texts().values() for text in texts], self.prompt)}

    def items(self) -> list[Items]:
        return [Items(self.train, "none"), Items(self.test, "none")]

    def _texts(self) -> dict[int, list[str]]:
        """Returns the texts of each class."""
        return dict(zip(self.labels, zero_shot.texts_of(list(self.labels.values()))))

    def score(self, vectors: Vectors, view: View, search: SearchFn) -> Scored:
        """Raises UsageError: pixels are scored by `score_patches`, as no vector of a whole image knows them."""
        raise UsageError(f"task {self.name!r} is of pixels, and vectors of whole images know none; score its patches")

    def score_patches(
        self, patches: PatchFn | None, names: np.ndarray | None = None, image_size: int | None = None
    ) -> Scored:
        """Returns the scores of a model whose patches `patches` gives.

        `names` are the vectors of the part of that name, and `image_size` the pixels of the square that the model takes.
        """
        if patches is None:
            raise UsageError(f"task {self.name!r} is of pixels, and the model has no patches; pick other tasks")
        train, rows, columns = patches(self.train)
        test, _, _ = patches(self.test)
        probe = _Probe(train, test, rows, columns)
        classes, gold = (self._read("classes", maps, 1) for maps in (self.train_maps, self.test_maps))
        known = np.unique(np.concatenate([np.unique(classes), np.unique(gold)]))
        known = known[known != IGNORED]
        if len(np.unique(classes[classes != IGNORED])) < 2 or (gold == IGNORED).all():
            raise DataError(
                f"task {self.name!r}: the maps of train have fewer than two classes, or those of test none (255 is none); correct "
                "the maps"
            )
        of_gold = _positions(gold, known)
        scores, counts, predicted = probe.classes(_positions(classes, known), of_gold, len(known))
        drawn = _Drawn(self.test, dense.colours(test).reshape(len(test), rows, columns, 3))
        drawn.add("classes", lambda one: pictures.of_classes(one, len(known)), predicted, of_gold)
        if names is not None:
            maps = zero_shot.maps(self.test, self._class_vectors(names, known), patches, image_size, gold.shape[1:3])
            predicted = maps.argmax(-1)
            scores["zero_shot_miou"] = dense.mean_iou(dense.confusion(predicted, of_gold, len(known), -1))
            drawn.add("classes by their names", lambda one: pictures.of_classes(one, len(known)), predicted)
        if "depth" in self.train_maps:
            depths = [self._read("depth", maps, 1) / DEPTH_UNIT for maps in (self.train_maps, self.test_maps)]
            depths = [self._some("depth", np.where(one == 0, np.nan, one)) for one in depths]
            predicted, ends = probe.values(*depths)[..., 0], (float(np.nanmin(depths[1])), float(np.nanmax(depths[1])))
            scores["depth_rmse"] = dense.rmse(predicted, depths[1])
            drawn.add("depth", lambda one: pictures.of_depths(one, *ends), predicted, depths[1])
        if "normals" in self.train_maps:
            normals = [self._read("normals", maps, 3) for maps in (self.train_maps, self.test_maps)]
            normals = [self._some("normals", _directions(one)) for one in normals]
            predicted = probe.values(*normals)
            scores["normals_degrees"] = dense.angle(predicted, normals[1])
            drawn.add("normals", pictures.of_normals, predicted, normals[1])
        return Scored(scores, Sample("mean_iou", counts.reshape(len(counts), -1)), drawn.rows)

    def _read(self, kind: str, maps: Mapping[str, Sequence[pathlib.Path]], channels: int) -> np.ndarray:
        """Returns the maps of a kind; those with another number of values a pixel are a DataError."""
        read = _read(maps[kind])
        values, wanted = read.shape[3:], (channels,) if channels > 1 else ()
        if values != wanted:
            raise DataError(
                f"{maps[kind][0]}: has {(values or (1,))[0]} values a pixel, and a map of {kind} has {channels}; write it so"
            )
        return read

    def _some(self, kind: str, values: np.ndarray) -> np.ndarray:
        """Returns values, some of which must be known."""
        if np.isnan(values).all():
            raise DataError(f"task {self.name!r}: its maps of {kind} are empty; correct them")
        return values

    def _class_vectors(self, names: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Returns the vectors of the classes that occur; one without a name is a DataError."""
        texts = self._texts()
        missing = [int(number) for number in known if int(number) not in texts]
        if missing:
            raise DataError(f"task {self.name!r}: class {missing[0]} has no name in labels.jsonl; add it")
        vectors = zero_shot.class_vectors(names, [len(one) for one in texts.values()])
        numbers = list(texts)
        return vectors[[numbers.index(int(number)) for number in known]]


_PICTURES = 6  # test images that are drawn


class _Drawn:
    """Rows of pictures of a few test images: the image, the components of its patches, and maps as predicted and as they are."""

    def __init__(self, items: Sequence[Item], components: np.ndarray):
        self._chosen = np.unique(np.linspace(0, len(items) - 1, _PICTURES).astype(int))
        self._items, self._components = items, components
        self._maps: list[tuple[str, Callable[[np.ndarray], bytes], np.ndarray]] = []

    def add(
        self, name: str, draw: Callable[[np.ndarray], bytes], predicted: np.ndarray, gold: np.ndarray | None = None
    ):
        """Adds a panel of each image's `predicted` map, and one of `gold`, drawn by `draw`."""
        self._maps.append((f"{name}, predicted", draw, predicted[self._chosen]))
        if gold is not None:
            self._maps.append((name, draw, gold[self._chosen]))

    def rows(self) -> list[list[Panel]]:
        """Returns the panels of each image."""
        return [self._row(number, row) for number, row in enumerate(self._chosen)]

    def _row(self, number: int, row: int) -> list[Panel]:
        image = pictures.thumbnail(pictures.opened(self._items[row].images[0]))
        panels = [Panel("image", image), Panel("components of patches", pictures.scaled(self._components[row]))]
        return panels + [Panel(name, draw(maps[number])) for name, draw, maps in self._maps]


class _Probe:
    """Maps from patches of training images, and what they say of the pixels of test images."""

    def __init__(self, train: np.ndarray, test: np.ndarray, rows: int, columns: int):
        self._train, self._test, self._rows, self._columns = train, test, rows, columns

    def classes(
        self, train: np.ndarray, gold: np.ndarray, count: int
    ) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
        """Returns the scores of classes, and by the logistic regression each test image's confusion and its map.

        -1 is a class to ignore.
        """
        shares = dense.patch_shares(self._fitted(train), self._rows, self._columns, count)
        ridge = dense.Ridge(self._train, shares, self._rows, self._columns)(self._test)
        logistic = dense.logistic_classes(self._train, _largest(shares), self._test)
        logistic = np.pad(logistic, ((0, 0), (0, 0), (0, count - logistic.shape[-1])), constant_values=-np.inf)
        scores, counts, called = {}, {}, {}
        for name, maps in (("miou", np.exp(logistic)), ("miou_ridge", ridge)):
            called[name] = predicted = self._resized(maps, gold.shape[1:3]).argmax(-1)
            counts[name] = np.stack([dense.confusion(p, g, count, -1) for p, g in zip(predicted, gold)])
            scores[name] = dense.mean_iou(counts[name].sum(0))
        of_test = dense.patch_shares(self._fitted(gold), self._rows, self._columns, count)
        scores["ari"] = dense.agreement(self._test, _largest(of_test))
        return scores, counts["miou"], called["miou"]

    def values(self, train: np.ndarray, gold: np.ndarray) -> np.ndarray:
        """Returns the values of test pixels by a ridge regression of patches' means."""
        channels = train if train.ndim == 4 else train[..., None]
        means = dense.patch_means(self._fitted(channels), self._rows, self._columns)
        fitted = dense.Ridge(self._train, means, self._rows, self._columns)(self._test)
        return self._resized(fitted, gold.shape[1:3])

    def _resized(self, maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        return dense.resized(maps, self._rows, self._columns, *shape)

    def _fitted(self, maps: np.ndarray) -> np.ndarray:
        """Returns maps whose sides are multiples of the grid's, by repeating pixels."""
        for axis, patches in ((1, self._rows), (2, self._columns)):
            pixels = maps.shape[axis]
            if pixels % patches:
                more = -(-pixels // patches) * patches
                maps = np.take(maps, np.arange(more) * pixels // more, axis)
        return maps


def _largest(shares: np.ndarray) -> np.ndarray:
    """Returns the class of most pixels of each patch; -1 where every pixel is ignored."""
    return np.where(shares.sum(-1) > 0, shares.argmax(-1), -1)


def _directions(colours: np.ndarray) -> np.ndarray:
    """Returns the directions that colours stand for; black, and what has hardly a length, is none (NaN)."""
    directions = colours / 127.5 - 1
    is_none = (colours == 0).all(-1) | (np.linalg.norm(directions, axis=-1) < 0.5)
    return np.where(is_none[..., None], np.nan, directions)


def _read(paths: Sequence[pathlib.Path]) -> np.ndarray:
    """Returns maps of one size as one array."""
    maps = [image_bytes.read_map(path.read_bytes(), str(path)) for path in paths]
    for path, one in zip(paths, maps):
        if one.shape != maps[0].shape:
            raise DataError(
                f"{path}: is {list(one.shape)}, and {paths[0]} {list(maps[0].shape)}; resize the maps to one size"
            )
    return np.stack(maps)


def _positions(classes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns classes as positions in `known`, and -1 for the one that is ignored."""
    positions = np.searchsorted(known, classes).clip(0, len(known) - 1)
    return np.where(known[positions] == classes, positions, -1)
