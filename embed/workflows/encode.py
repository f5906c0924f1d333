"""The texts of a file into shards of vectors, resumable and divided over hosts."""

import contextlib
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from embed import console, files, hosts
from embed.errors import DataError, UsageError, did_you_mean
from embed.inference import bulk
from embed.inference import model as inference
from embed.inference.shards import FORMATS, PRECISIONS
from embed.sources import input_texts
from embed.sources.input_texts import Text
from embed.text import template
from embed.types import Item

_CHECKED_EVERY = 30.0  # seconds


def run(
    model,
    input,
    output,
    *,
    prompt: str | None = None,
    format: str = "parquet",
    precision: str = "float32",
    dims: int | None = None,
    dtype: str | None = None,
    max_length: int | None = None,
    text_field: str | None = None,
    id_field: str | None = None,
    title_field: str | None = None,
    image_field: str | None = None,
    shard_size: int = 8192,
) -> None:
    """Encodes the texts or images of the file `input` into the folder `output`, which `inference.bulk.read` reads.

    `model` is a MODEL, or an `encode_endpoint.Served` one. The whole file is checked before anything is written. A job that was
    stopped goes on: finished shards are verified and kept.
    `prompt` is a prompt's name or a template (by default 'document', and of a served model the text alone), `format` one of
    `inference.shards.FORMATS`, `precision` one of its PRECISIONS.
    `dims` keeps that many first values, scaled back to unit length. `max_length` is in tokens. `image_field` is the field
    with the path of an image, or a list of paths, relative to the folder of the file; records are then images, with the text of
    `text_field` if it is given. Without `image_field`, `text_field` is 'text' by default.
    """
    for name, given, known in (("format", format, FORMATS), ("quantize", precision, PRECISIONS)):
        if given not in known:
            raise UsageError(f"--{name}={given}{did_you_mean(given, known)}")
    bulk.need(format)
    source, output = pathlib.Path(input), pathlib.Path(output)
    opened = open_model(model, dtype, max_length)
    prompt = opened.default_prompt if prompt is None else prompt
    opened.check(prompt, dims)
    if image_field is None:
        text_field = text_field or "text"
        fields = {"text": text_field, "id": id_field, "title": title_field}
        read = functools.partial(input_texts.read_texts, source, text_field, id_field, title_field, as_they_are=True)
    else:
        opened.check_images(title_field)
        fields = {"image": image_field, "text": text_field, "id": id_field}
        read = functools.partial(input_texts.read_images, source, image_field, text_field, id_field)
    # The whole input is read before anything is written.
    scanned = bulk.scan(read, shard_size, progress=_Checked(source))
    if not scanned.texts:
        raise DataError(f"{source}: holds no text; give a file of texts")
    opened.announce(scanned.texts, prompt, shard_size)
    with opened.working_in(output):
        opened.encode(read, scanned, output, prompt, format, precision, dims, shard_size, {"fields": fields})


def open_model(model, dtype: str | None, max_length: int | None) -> "Encoding":
    """Returns what encodes the texts of a job: a MODEL that is opened, or a served one as it is."""
    if not isinstance(model, Encoding):
        return Opened(model, dtype, max_length)
    for name, value in (("dtype", dtype), ("max_length", max_length)):
        if value is not None:
            raise UsageError(f"--{name} has no effect with --endpoint, whose server decides it; leave it out")
    return model


class Encoding:
    """Base of what encodes the texts of jobs. `job` are settings that a job must keep, and that do not decide the vectors.

    `default_prompt` is that of the texts of a file.
    """

    default_prompt = "document"
    job: Mapping[str, Any] = {}

    @property
    def prompts(self) -> Mapping[str, str]:
        """The templates of the prompts that are known by name."""
        raise NotImplementedError

    def template(self, prompt: str) -> str:
        """Returns the template of a prompt's name, or of itself; an unknown name is an error."""
        return template(prompt, dict(self.prompts))

    def check(self, prompt: str, dims: int | None) -> None:
        """Raises an error for a prompt or a size that there is not."""
        raise NotImplementedError

    def check_images(self, title_field: str | None) -> None:
        """Raises UsageError where images cannot be encoded, or a title has no effect on them."""
        raise UsageError("--image_field has no effect here: texts alone are sent; leave it out")

    def identity(self, prompt: str, dims: int | None) -> dict[str, Any]:
        """Returns what decides the vectors of a text."""
        raise NotImplementedError

    def announce(self, texts: int, prompt: str, shard_size: int) -> None:
        """Says before a job what it will ask for, where that costs something."""

    def working_in(self, folder: pathlib.Path) -> contextlib.AbstractContextManager:
        """Returns the context of jobs, which may keep something in `folder` until they are finished."""
        return contextlib.nullcontext()

    def vectors(self, items: list[Text], prompt_template: str, dims: int | None) -> tuple[np.ndarray, int]:
        """Returns the vectors of some texts, float32 [n, E], and how many of the texts were cut."""
        raise NotImplementedError

    def summary(self, texts: int, cut: int) -> str:
        """Returns what is said of the texts of a finished job, after their number; "" for nothing."""
        raise NotImplementedError

    def encode(
        self,
        read: Callable[[], Iterable[Text]],
        scanned: bulk.Input,
        output,
        prompt: str,
        format: str,
        precision: str,
        dims: int | None,
        shard_size: int,
        identity: Mapping[str, Any],
    ) -> None:
        """Encodes the texts that `read` gives, which were `scanned`, into the folder `output`, or goes on with them."""
        started, prompt_template = time.time(), self.template(prompt)
        job = bulk.Job(
            output=pathlib.Path(output),
            format=format,
            precision=precision,
            shard_size=shard_size,
            input=scanned,
            identity={**self.identity(prompt, dims), **self.job, **identity},
        )
        finished = job.finished() if hosts.is_main() else None
        if hosts.agree(np.array(finished is not None)):
            console.say(f"{output}: was finished before, and every file in it is whole; nothing was written")
            return

        def encode(shard):
            return self.vectors(shard, prompt_template, dims)

        hosts.refuse_copies(job.output, "encoding")
        with files.FolderLock(job.output) if hosts.is_main() else contextlib.nullcontext():
            if hosts.is_main():
                job.begin()
            hosts.sync("the encoding job has begun")
            bulk.run(job, read(), encode, jax.process_index(), jax.process_count(), console.ShardReport(), _warn)
            hosts.sync("every shard was encoded")
            if hosts.is_main():
                summary = bulk.finish(job, started, _warn)
                console.say(
                    f"wrote {output}: {summary['texts']:,} texts in {summary['shards']} shards"
                    f"{self.summary(summary['texts'], summary['cut'])}"
                )


class Opened(Encoding):
    """A model that is open for jobs of encoding, on the devices of this host."""

    def __init__(self, model, dtype: str | None, max_length: int | None):
        self._cut, self._of_images = 0, False

        def overflow(truncated: int, total: int) -> None:
            del total
            self._cut += truncated

        local_devices = jax.local_devices()  # every host works for itself
        options = {"max_length": max_length, "overflow": overflow, "dtype": dtype, "devices": local_devices}
        self.model = inference.open_model(model, **options)

    @property
    def prompts(self) -> Mapping[str, str]:
        return self.model.prompts

    def check(self, prompt: str, dims: int | None) -> None:
        """Raises an error for a prompt or a size that the model does not have."""
        self.template(prompt)
        self.model.check_dims(dims)

    def check_images(self, title_field: str | None) -> None:
        """Raises UsageError where the model embeds texts only, or a title is asked for beside images."""
        if not self.model.takes_images:
            raise UsageError(f"--image_field: {self.model.folder} embeds texts only; take a model of both")
        if title_field is not None:
            raise UsageError("--title_field has no effect with --image_field; leave it out")
        self._of_images = True

    def identity(self, prompt: str, dims: int | None) -> dict[str, Any]:
        """Returns what decides the vectors of a text."""
        return {
            "model": self.model.digest,
            "prompt": self.template(prompt),
            "dims": dims or self.model.embedding_dim,
            "max_length": self.model.max_length,
            "dtype": self.model.dtype,
        }

    def vectors(self, items: list[Text], prompt_template: str, dims: int | None) -> tuple[np.ndarray, int]:
        """Returns the vectors of some texts, and how many of these were cut."""
        self._cut = 0
        with console.text_bar(len(items)) as progress:
            return self.model.encode([_item(t) for t in items], prompt_template, dims, progress), self._cut

    def summary(self, texts: int, cut: int) -> str:
        """Returns how many of the texts were cut; of images with texts only if any were."""
        if self._of_images and not cut:
            return ""
        return f", {cut / texts:.1%} cut at {self.model.max_length} tokens"


def _item(text: Text) -> Item:
    return Item(text.text, text.title or None, text.images) if text.images else Item(text.text, text.title)


def _warn(line: str) -> None:
    """Prints what a host met in its own files; each host tells of its own."""
    print(line, file=sys.stderr, flush=True)


class _Checked:
    """Says every half a minute how many texts of a large input have been checked."""

    def __init__(self, source: pathlib.Path):
        self._source, self._texts, self._last = source, 0, time.monotonic()

    def __call__(self, texts: int) -> None:
        self._texts += texts
        now = time.monotonic()
        if now - self._last >= _CHECKED_EVERY:
            self._last = now
            console.say(f"{self._source}: {self._texts:,} texts checked")
