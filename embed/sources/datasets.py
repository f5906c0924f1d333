"""Datasets of the Hugging Face Hub and of TFDS."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embed.documents import digest_json, first_line
from embed.errors import DataError, did_you_mean
from embed.files import sha256_file
from embed.ranges import Count, Share
from embed.sources.fields import DEFAULT_BAD_SHARE, DEFAULT_FIELDS
from embed.sources.paths import folder_fingerprint, is_saved_dataset
from embed.sources.record_files import Mapped


@dataclasses.dataclass(frozen=True)
class HuggingFaceDataset(Mapped):
    """A dataset of the Hugging Face Hub, a local one, or a folder of `save_to_disk`; needs `datasets` (extra [huggingface]).

    Images come as the bytes of their files, whatever the type of their column says. `streaming` reads it as it comes instead of
    fetching all of it first; `max_rows` stops after that many. `optional`, `on_bad_record` and `max_bad_share` are as in `Files`.
    """

    name: str
    fields: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(DEFAULT_FIELDS))
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False
    max_rows: Count | None = None
    optional: Sequence[str] = ()
    on_bad_record: str = "error"
    max_bad_share: Share = DEFAULT_BAD_SHARE

    def fingerprint(self) -> dict[str, str]:
        """Returns {file: sha256} of a local folder; of a set of the Hub its name and revision. Without a revision a set that
        changes on the Hub is not noticed."""
        names = {"name": self.name, "config": str(self.config), "revision": str(self.revision)}
        return names | folder_fingerprint(self.name)

    def raw(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields ("name[split]:row", raw record)."""
        for number, raw in enumerate(self.load()):
            if self.max_rows is not None and number >= self.max_rows:
                return
            yield f"{self.name}[{self.split}]:{number}", raw

    def load(self):
        """Returns the dataset as the package `datasets` gives it."""
        try:
            import datasets
        except ImportError as e:
            raise DataError("Hugging Face datasets need a package; run: pip install 'embed[huggingface]'") from e
        if is_saved_dataset(self.name):
            return _undecoded(self._saved(datasets), datasets)
        options = {"streaming": True} if self.streaming else {}
        local = folder_fingerprint(self.name)
        if local:  # the package's own cache goes by the times of files, which a copy may keep
            options["cache_dir"] = str(pathlib.Path(datasets.config.HF_DATASETS_CACHE) / digest_json(local)[:16])
        try:
            loaded = datasets.load_dataset(self.name, self.config, split=self.split, revision=self.revision, **options)
        except Exception as e:  # of the package, of the Hub and of the network, in many types
            advice = "correct HuggingFaceDataset.name, config, split or revision, or reach the Hub"
            raise DataError(f"{self.name}[{self.split}]: cannot be loaded ({first_line(e)}); {advice}") from e
        return _undecoded(loaded, datasets)

    def _saved(self, datasets):
        """Returns the dataset that `save_to_disk` wrote, or its split where it wrote several."""
        if self.config is not None or self.revision is not None or self.streaming:
            raise DataError(
                f"{self.name}: was written by save_to_disk, where HuggingFaceDataset.config, revision and streaming have no "
                "effect; leave them out"
            )
        saved = datasets.load_from_disk(self.name)
        if isinstance(saved, datasets.DatasetDict):
            if self.split not in saved:
                raise DataError(f"{self.name}: no split {self.split!r}{did_you_mean(self.split, saved)}")
            return saved[self.split]
        if self.split not in ("train", str(saved.split)):
            raise DataError(
                f"{self.name}: holds one dataset, not the split {self.split!r}; leave out HuggingFaceDataset.split"
            )
        return saved


def _undecoded(loaded, datasets):
    """Returns a dataset whose images stay as they are stored: {"bytes": ..., "path": ...}."""
    for name, feature in (getattr(loaded, "features", None) or {}).items():
        if isinstance(feature, datasets.Image):
            loaded = loaded.cast_column(name, datasets.Image(decode=False))
    return loaded


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A TFDS dataset, e.g. name='natural_questions/longt5:0.1.0'; read by seqio's own TfdsDataSource."""

    name: str
    fields: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(DEFAULT_FIELDS))
    split: str = "train"
    data_dir: str | None = None

    def fingerprint(self) -> dict[str, str]:
        """Returns the dataset's name with its version, and the names and sizes of its files where they are on this machine."""
        base = pathlib.Path(self.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
        folder = base / self.name.partition(":")[0]
        names = {"name": self.name, "split": self.split}
        described = sorted(folder.rglob("dataset_info.json")) if folder.is_dir() else []
        sizes = [[str(p.relative_to(folder)), p.stat().st_size] for p in sorted(folder.rglob("*")) if p.is_file()]
        return names | ({"files": digest_json([sizes, [sha256_file(p) for p in described]])} if described else {})

    def decoders(self, images: Sequence[str]) -> dict[str, Any] | None:
        """Returns what keeps the fields of these roles as the bytes of image files; None where there are none."""
        import tensorflow_datasets as tfds

        return {self.fields.get(role, role): tfds.decode.SkipDecoding() for role in images} or None

    def raw(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields ("name[split]:row", raw record), for sources that are made from it."""
        import tensorflow_datasets as tfds

        rows = tfds.load(self.name, split=self.split, data_dir=self.data_dir, download=False)
        for number, raw in enumerate(tfds.as_numpy(rows)):
            yield f"{self.name}[{self.split}]:{number}", raw
