"""Every text and image of an evaluation embedded once, whatever tasks, sizes and precisions need it, and kept on disk."""

import dataclasses
import hashlib
import io
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from embed import files
from embed.errors import NumericError
from embed.types import EncodeFn, Item

_CHUNK = 8192  # texts between two writes


@dataclasses.dataclass(frozen=True)
class Items:
    """Some items of a task, texts or `types.Item`s, with the name or template of the texts' prompt and the texts' titles."""

    items: Sequence[str | Item]
    prompt: str
    titles: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def item(self, row: int) -> Item:
        """Returns one of them."""
        value = self.items[row]
        if isinstance(value, Item):
            return value
        return Item(value, self.titles[row] if self.titles is not None else None)

    def keys(self, template: Callable[[str], str]) -> list[bytes]:
        """Returns what each item's vector depends on beside the model, as 16 bytes."""
        prompt = template(self.prompt).encode("utf-8", "surrogatepass")
        if self.titles is not None and len(self.titles) != len(self.items):
            raise ValueError(f"{len(self.titles)} titles of {len(self.items)} texts")
        return [_key(prompt, self.item(row)) for row in range(len(self.items))]


def _key(prompt: bytes, item: Item) -> bytes:
    encode = lambda text: (text or "").encode("utf-8", "surrogatepass")  # noqa: E731
    # An item without a text depends on no prompt.
    parts = [] if item.text is None else [prompt, encode(item.title), encode(item.text)]
    parts += [_content(image) for image in item.images]
    joined = b"".join(b"%d:%s" % (len(p), p) for p in parts)
    return hashlib.blake2b(joined, digest_size=16, person=b"" if not item.images else b"images").digest()


def _content(image) -> bytes:
    """Returns what tells one image from another: a digest of the file's bytes, or of an array's."""
    if isinstance(image, np.ndarray):
        head = f"{image.dtype.str} {image.shape} ".encode()
        return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).digest()
    content = image if isinstance(image, bytes) else pathlib.Path(image).read_bytes()
    return hashlib.sha256(content).digest()


class Embeddings:
    """The vectors of one model. `template` gives the words of a prompt's name; with `folder` vectors are kept there.

    Items are embedded in chunks, each written whole before the next: a run that was killed embeds none of them again.
    `say` is given a line about a damaged chunk. Where several hosts embed together `agree` gives all of them the main
    host's array; what it has kept is what is not embedded again.
    """

    def __init__(
        self,
        encode: EncodeFn,
        template: Callable[[str], str],
        folder: pathlib.Path | None = None,
        say: Callable[[str], None] = lambda line: None,
        agree: Callable[[np.ndarray], np.ndarray] = lambda there: there,
    ):
        self._encode, self._template, self._folder, self._agree = encode, template, folder, agree
        self._place: dict[bytes, tuple[int, int]] = {}
        self._chunks: list[np.ndarray] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.npz")):
                self._add(*_read(path, say))

    def _add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        for row, key in enumerate(keys):
            self._place.setdefault(key.tobytes(), (len(self._chunks), row))
        self._chunks.append(vectors)

    def missing(self, parts: Iterable[Items]) -> list[tuple[bytes, Items, int]]:
        """Returns (key, part, row) of the texts that are not embedded yet, each once."""
        absent, seen = [], set()
        for part in parts:
            for row, key in enumerate(part.keys(self._template)):
                if key not in seen:
                    seen.add(key)
                    absent.append((key, part, row))
        stored = self._agree(np.array([key in self._place for key, _, _ in absent], bool))
        return [item for item, known in zip(absent, stored) if not known]

    def embed(self, parts: Sequence[Items], progress: Callable[[int], None] = lambda texts: None) -> int:
        """Embeds what is missing of `parts` and returns how many texts that was. `progress` gets their numbers as they come."""
        missing = self.missing(parts)
        # Items of one prompt follow each other, so that each call of the encoder has one prompt.
        missing.sort(key=lambda item: self._template(item[1].prompt))
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            vectors = np.concatenate([self._encode_run(run, progress) for run in _runs(chunk, self._template)])
            keys = np.frombuffer(b"".join(key for key, _, _ in chunk), np.uint8).reshape(-1, 16)
            bad = int(np.sum(~np.all(np.isfinite(vectors), axis=1)))
            if bad:
                raise NumericError(
                    f"{bad} of {len(vectors)} embeddings are not finite; the model cannot be scored: look at its weights"
                )
            if self._folder is not None:
                self._write(keys, vectors)
            self._add(keys, vectors)
        return len(missing)

    def _encode_run(self, run, progress) -> np.ndarray:
        items = [part.item(row) for _, part, row in run]
        # MTEB embeds empty texts.
        options = {} if all(item.text or item.title or item.images for item in items) else {"allow_empty": True}
        return np.asarray(self._encode(items, prompt=run[0][1].prompt, progress=progress, **options), np.float32)

    def _write(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, keys=keys, vectors=vectors, digest=_digest(keys, vectors))
        name = hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()
        files.write_atomic(self._folder / f"{name}.npz", buffer.getvalue())

    def get(self, part: Items) -> np.ndarray:
        """Returns the vectors of embedded texts: float32 [n, E]."""
        rows = [self._place[key] for key in part.keys(self._template)]
        width = next((c.shape[1] for c in self._chunks if len(c)), 0)
        out = np.empty((len(rows), width), np.float32)
        for i, (chunk, row) in enumerate(rows):
            out[i] = self._chunks[chunk][row]
        return out


def _runs(chunk, template):
    """Yields stretches of one prompt."""
    start = 0
    for end in range(1, len(chunk) + 1):
        if end == len(chunk) or template(chunk[end][1].prompt) != template(chunk[start][1].prompt):
            yield chunk[start:end]
            start = end


def _digest(keys: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    digest = hashlib.blake2b(np.ascontiguousarray(keys).tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(vectors).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _read(path: pathlib.Path, say: Callable[[str], None]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the keys and vectors of a chunk; a damaged one is set aside, and its texts are embedded again."""
    reason = "its digest does not fit"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            keys, vectors, digest = stored["keys"], stored["vectors"], stored["digest"]
        if np.array_equal(digest, _digest(keys, vectors)):
            return keys, vectors
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as e:
        reason = str(e) or type(e).__name__
    aside = path.with_suffix(".damaged")
    path.rename(aside)
    say(f"{path}: kept vectors are damaged ({reason}); set aside as {aside.name}, their texts are embedded again")
    return np.zeros((0, 16), np.uint8), np.zeros((0, 1), np.float32)
