"""`embed encode`: the texts of a file into vectors, resumable and divided over hosts."""

import contextlib
import functools
import pathlib
import sys
import time

from embed import console, environment
from embed.commands import options

SUMMARY = (
    "Encode the texts of a file (jsonl, json, tsv, csv, txt, parquet; all but the last may be .gz) into shards of vectors, in "
    "order and with their ids. The whole file is checked before anything is written. Run the same command again after a "
    "kill: finished shards are verified and kept. Several hosts share the work when each runs the same command."
)
log_path = options.log_beside_output
_CHECKED_EVERY = 30.0  # seconds


def add_arguments(parser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", type=options.path, help="run folder, checkpoint step folder or bundle"
    )
    parser.add_argument("--input", required=True, type=options.path, help="the file of texts")
    parser.add_argument("--output", required=True, type=options.path, help="folder for the vectors")
    parser.add_argument("--prompt", default="document", help="prompt by name, or a template with {content} (document)")
    parser.add_argument("--format", default="parquet", help="parquet (default), npy or jsonl")
    parser.add_argument(
        "--dims", type=options.count, help="keep this many first dimensions, scaled back to unit length"
    )
    parser.add_argument(
        "--quantize", default="float32", help="float32 (default), int8 (with a scale) or binary (signs)"
    )
    parser.add_argument("--dtype", help="compute in float32 or bfloat16 (default: as the model was trained)")
    parser.add_argument(
        "--max_length", type=options.count, help="tokens a text is cut at (default: what the model was made for)"
    )
    parser.add_argument("--text_field", default="text", help="field or column of the text")
    parser.add_argument("--id_field", help="field or column of the id (default: id, or else the record's number)")
    parser.add_argument("--title_field", help="field or column of a title, for prompts that have a place for it")
    parser.add_argument("--shard_size", type=options.count, default=8192, help="texts a shard (8192)")
    parser.add_argument("--distributed", action="store_true", help="join the other hosts of a TPU pod or Slurm job")


def run(arguments) -> None:
    from embed.errors import DataError, UsageError, did_you_mean
    from embed.inference import shards

    for name, known in (("format", shards.FORMATS), ("quantize", shards.PRECISIONS)):
        given = getattr(arguments, name)
        if given not in known:
            raise UsageError(f"--{name}={given}{did_you_mean(given, known)}")
    source = _input(arguments.input)
    environment.start(arguments.distributed)
    import jax
    import numpy as np

    from embed import files, hosts
    from embed.console import say
    from embed.data import texts
    from embed.data.text import template
    from embed.inference import bulk
    from embed.inference import model as inference

    bulk.need(arguments.format)
    started, cut = time.time(), [0]

    def overflow(truncated: int, total: int) -> None:
        del total
        cut[0] = truncated

    own = jax.local_devices()  # every host works for itself
    model = inference.open_model(
        arguments.model, max_length=arguments.max_length, overflow=overflow, dtype=arguments.dtype, devices=own
    )
    prompt = template(arguments.prompt, model.prompts)
    model.check_dims(arguments.dims)
    fields = {"text": arguments.text_field, "id": arguments.id_field, "title": arguments.title_field}
    names = (fields["text"], fields["id"], fields["title"])
    read = functools.partial(texts.read_texts, source, *names, as_they_are=True)
    job = bulk.Job(
        output=pathlib.Path(arguments.output),
        format=arguments.format,
        precision=arguments.quantize,
        shard_size=arguments.shard_size,
        # The whole input is read before anything is written.
        input=bulk.scan(read, arguments.shard_size, progress=_Checked(source)),
        identity={
            "model": model.digest,
            "prompt": prompt,
            "dims": arguments.dims or model.encoder.model.embedding_dim,
            "max_length": model.encoder.max_length,
            "dtype": model.dtype,
            "fields": fields,
        },
    )
    if not job.input.texts:
        raise DataError(f"{source}: holds no text; give a file of texts")
    finished = job.finished() if hosts.is_main() else None
    if hosts.agree(np.array(finished is not None)):
        say(f"{arguments.output}: was finished before, and every file in it is whole; nothing was written")
        return

    def encode(shard):
        titles = [t.title for t in shard] if arguments.title_field else None
        with console.text_bar(len(shard)) as progress:
            return model.encode([t.text for t in shard], prompt, titles, arguments.dims, progress), cut[0]

    with files.FolderLock(job.output) if hosts.is_main() else contextlib.nullcontext():
        if hosts.is_main():
            job.begin()
        hosts.sync("the encoding job has begun")
        bulk.run(job, read(), encode, jax.process_index(), jax.process_count(), console.ShardReport(), _warn)
        hosts.sync("every shard was encoded")
        if hosts.is_main():
            summary = bulk.finish(job, started, _warn)
            say(
                f"wrote {arguments.output}: {summary['texts']:,} texts in {summary['shards']} shards, "
                f"{summary['cut'] / summary['texts']:.1%} cut at {model.encoder.max_length} tokens"
            )


def _input(path: str) -> pathlib.Path:
    """Returns the input's path; a DataError unless it is a file."""
    from embed.errors import DataError

    source = pathlib.Path(path)
    try:
        if not source.is_file():
            reason = "not a file, and it is read twice; write it to one" if source.exists() else "no such file"
            raise DataError(f"{source}: {reason}; correct --input")
    except OSError as e:
        raise DataError(f"{source}: cannot be read ({e.strerror}); correct --input") from e
    return source


def _warn(line: str) -> None:
    """Prints what a host met in its own files; each host tells of its own."""
    print(line, file=sys.stderr, flush=True)


class _Checked:
    """Says every half a minute how many texts of a large input have been checked."""

    def __init__(self, source: pathlib.Path):
        self._source, self._texts, self._last = source, 0, time.monotonic()

    def __call__(self, texts: int) -> None:
        from embed.console import say

        self._texts += texts
        now = time.monotonic()
        if now - self._last >= _CHECKED_EVERY:
            self._last = now
            say(f"{self._source}: {self._texts:,} texts checked")
