"""`embed encode`: the texts of a file into vectors, resumable and divided over hosts."""

import pathlib
import time

from embed.commands import runtime

SUMMARY = (
    "Encode the texts of a file (jsonl, tsv, txt, parquet; the first three may be .gz) into shards of vectors, in order and "
    "with their ids. Run the same command again after a kill: finished shards are kept. Several hosts share the work when "
    "each runs the same command."
)


def add_arguments(parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="run folder, checkpoint step folder or bundle")
    parser.add_argument("--input", required=True, help="the file of texts")
    parser.add_argument("--output", required=True, help="folder for the vectors")
    parser.add_argument("--prompt", default="document", help="prompt by name, or a template with {content} (document)")
    parser.add_argument("--format", default="parquet", help="parquet (default), npy or jsonl")
    parser.add_argument("--dims", type=int, help="keep this many first dimensions, scaled back to unit length")
    parser.add_argument(
        "--quantize", default="float32", help="float32 (default), int8 (with a scale) or binary (signs)"
    )
    parser.add_argument("--dtype", help="compute in float32 or bfloat16 (default: as the model was trained)")
    parser.add_argument("--max_length", type=int, help="tokens a text is cut at (default: what the model was made for)")
    parser.add_argument("--text_field", default="text", help="field or column of the text")
    parser.add_argument("--id_field", help="field or column of the id (default: id, or else the record's number)")
    parser.add_argument("--title_field", help="field or column of a title, for prompts that have a place for it")
    parser.add_argument("--shard_size", type=int, default=8192, help="texts a shard (8192)")
    parser.add_argument("--distributed", action="store_true", help="join the other hosts of a TPU pod or Slurm job")


def run(arguments) -> None:
    runtime.start(arguments.distributed)
    import jax

    from embed import hosts
    from embed.data import texts
    from embed.data.text import template
    from embed.errors import UsageError, did_you_mean
    from embed.inference import bulk
    from embed.inference import model as inference

    for name, known in (("format", bulk.FORMATS), ("quantize", bulk.PRECISIONS)):
        given = getattr(arguments, name)
        if given not in known:
            raise UsageError(f"--{name}={given}{did_you_mean(given, known)}")
    if arguments.shard_size < 1:
        raise UsageError(f"--shard_size={arguments.shard_size}: at least 1")
    bulk.need(arguments.format)
    started, cut = time.time(), [0]

    def overflow(truncated: int, total: int) -> None:
        del total
        cut[0] = truncated

    own = jax.local_devices()  # every host works for itself
    model = inference.open_model(
        arguments.model, max_length=arguments.max_length, overflow=overflow, dtype=arguments.dtype, devices=own
    )
    words = template(arguments.prompt, model.prompts)
    model.check_dims(arguments.dims)
    job = bulk.Job(
        output=pathlib.Path(arguments.output),
        format=arguments.format,
        precision=arguments.quantize,
        shard_size=arguments.shard_size,
        identity={
            "model": model.digest,
            "input": pathlib.Path(arguments.input).name,
            "prompt": words,
            "dims": arguments.dims or model.encoder.model.embedding_dim,
            "max_length": model.encoder.max_length,
            "dtype": model.dtype,
        },
    )
    if hosts.is_main():
        job.begin()
    hosts.sync("the encoding job has begun")
    records = texts.read_texts(arguments.input, arguments.text_field, arguments.id_field, arguments.title_field)

    def encode(shard):
        titles = [t.title for t in shard] if arguments.title_field else None
        with runtime.text_bar(len(shard)) as progress:
            return model.encode([t.text for t in shard], words, titles, arguments.dims, progress), cut[0]

    report = runtime.ShardReport()
    bulk.run(job, records, encode, jax.process_index(), jax.process_count(), report)
    hosts.sync("every shard was encoded")
    if hosts.is_main():
        summary = bulk.finish(job, started)
        if not summary["texts"]:
            raise UsageError(f"{arguments.input}: holds no text")
        print(
            f"wrote {arguments.output}: {summary['texts']:,} texts in {summary['shards']} shards, "
            f"{summary['cut'] / summary['texts']:.1%} cut at {model.encoder.max_length} tokens"
        )
