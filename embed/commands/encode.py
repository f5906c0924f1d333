"""`embed encode`: the texts of a file into vectors, resumable and divided over hosts.

Texts are packed into rows of a few shapes. Every shard has a digest: a shard that was changed or deleted is made again, and a
changed input is refused. embed.inference.bulk.read verifies the digests and gives the vectors back.

With --image_field each record has one image or a list of images. With --text_field too, its images and its text are one item; for
a model that reads images in texts, the text marks them with [MASK_0], [MASK_1], ... Images are opened as they are encoded; all of
them are read once before, for their digests.

With --gin_file instead of --input the texts are those that the recipe trains on, each once, in the prompts of the recipe's tasks
as MODEL has them, or in --query_prompt and --target_prompt (hard negatives are on the target's side). MODEL may then also be
a folder of Hugging Face or sentence-transformers, or a name of the Hub, which is converted once into the recipe's cache_dir. A
student learns from the folder: recipe.Recipe.teacher_vectors = 'FOLDER', and a loss such as
losses.distillation.EmbeddingDistillation. Of a recipe of images alone the images are encoded, into FOLDER/image, which
data.features.Vectors reads: what specialists teach one model (gin/recipes/universal/universal.gin).

With --endpoint and --model instead of MODEL the vectors are asked of an OpenAI-compatible server, such as Gemini's: POST
ENDPOINT/embeddings with the key from EMBED_API_KEY alone. A text is sent without a prompt unless one is given, and --dims as
`dimensions`. --max_requests and --max_tokens count every HTTP request before it is sent, retries, failures and earlier runs
included. Every reply is kept until the job is finished, so that nothing is asked twice. Needs the extra [curation].
"""

import pathlib

from embed import environment
from embed.commands import options
from embed.errors import DataError, UsageError

SUMMARY = (
    "Encode the texts of a file (jsonl, json, tsv, csv, txt, parquet; all but the last may be .gz) into shards of vectors, in "
    "order and with their ids. The whole file is checked before anything is written. Run the same command again after a "
    "kill: finished shards are verified and kept. Several hosts share the work when each runs the same command."
)
log_path = options.log_beside_output


def add_arguments(parser) -> None:
    parser.add_argument(
        "folder", metavar="MODEL", nargs="?", type=options.path, help="run folder, checkpoint step folder or bundle"
    )
    parser.add_argument("--input", type=options.path, help="the file of texts")
    options.add_gin_arguments(parser)
    parser.add_argument("--output", required=True, type=options.path, help="folder for the vectors")
    parser.add_argument(
        "--prompt", help="prompt by name, or a template with {content} (document; with --endpoint the text alone)"
    )
    parser.add_argument("--query_prompt", help="with --gin_file: the prompt of all queries (that of each one's task)")
    parser.add_argument("--target_prompt", help="with --gin_file: that of all targets (that of each one's task)")
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
    parser.add_argument("--text_field", help="field or column of the text (text; with --image_field none)")
    parser.add_argument(
        "--image_field", help="field with the path of an image, or a list of paths, relative to the folder of the file"
    )
    parser.add_argument("--id_field", help="field or column of the id (default: id, or else the record's number)")
    parser.add_argument("--title_field", help="field or column of a title, for prompts that have a place for it")
    parser.add_argument("--shard_size", type=options.count, default=8192, help="texts a shard (8192)")
    parser.add_argument("--distributed", action="store_true", help="join the other hosts of a TPU pod or Slurm job")
    options.add_endpoint_arguments(parser)
    parser.add_argument("--batch_size", type=options.count, default=32, help="with --endpoint: texts a request (32)")
    every = (*_OF_FILES, *_OF_RECIPES, *_OF_MODELS, *_OF_ENDPOINTS)
    parser.set_defaults(defaults={name: parser.get_default(name) for name in every})


_OF_FILES = ("prompt", "format", "quantize", "text_field", "id_field", "title_field", "image_field")
_OF_RECIPES = ("query_prompt", "target_prompt", "gin_bindings")
_OF_MODELS = ("dtype", "max_length", "distributed")
_ASKING = (
    "key_variable",
    "max_requests",
    "max_tokens",
    "concurrency",
    "attempts",
    "first_wait",
    "deadline",
    "batch_size",
)
_OF_ENDPOINTS = ("model", *_ASKING)


def run(arguments) -> None:
    of_recipe, of_endpoint = bool(arguments.gin_file), arguments.endpoint is not None
    if of_recipe == bool(arguments.input):
        raise UsageError("give --input, a file of texts, or --gin_file, a recipe whose texts are encoded for a student")
    if of_endpoint == (arguments.folder is not None):
        raise UsageError("give a MODEL, or --endpoint and --model where one is served")
    _check_unused(arguments, _OF_FILES if of_recipe else _OF_RECIPES, "--gin_file" if of_recipe else "--input")
    _check_unused(arguments, _OF_MODELS if of_endpoint else _OF_ENDPOINTS, "--endpoint" if of_endpoint else "a MODEL")
    if of_endpoint and not arguments.model:
        raise UsageError("--endpoint needs --model, the model's name there")
    if of_recipe:
        _encode_records(arguments)
    else:
        _encode_file(arguments)


def _check_unused(arguments, names, by: str) -> None:
    for name in names:
        if getattr(arguments, name) != arguments.defaults[name]:
            option = "--gin.NAME=VALUE" if name == "gin_bindings" else f"--{name}"
            raise UsageError(f"{option} has no effect with {by}; leave it out")


def _model(arguments):
    """Returns MODEL, or the served one."""
    if arguments.endpoint is None:
        return arguments.folder
    from embed.workflows.encode_endpoint import Served

    asking = {name: getattr(arguments, name) for name in _ASKING}
    return Served(arguments.endpoint, arguments.model, **asking)


def _encode_file(arguments) -> None:
    check_input(arguments.input)  # before JAX loads
    environment.start(arguments.distributed)
    from embed.workflows import encode

    encode.run(
        _model(arguments),
        arguments.input,
        arguments.output,
        prompt=arguments.prompt,
        format=arguments.format,
        precision=arguments.quantize,
        dims=arguments.dims,
        dtype=arguments.dtype,
        max_length=arguments.max_length,
        text_field=arguments.text_field,
        id_field=arguments.id_field,
        title_field=arguments.title_field,
        image_field=arguments.image_field,
        shard_size=arguments.shard_size,
    )


def _encode_records(arguments) -> None:
    environment.start(arguments.distributed)
    from embed import config
    from embed.workflows import encode_records
    from embed.workflows.recipe import Recipe

    encode_records.run(
        _model(arguments),
        config.build(Recipe, arguments.gin_file, arguments.gin_bindings)[0],
        arguments.output,
        query_prompt=arguments.query_prompt,
        target_prompt=arguments.target_prompt,
        dims=arguments.dims,
        dtype=arguments.dtype,
        max_length=arguments.max_length,
        shard_size=arguments.shard_size,
    )


def check_input(path: str) -> None:
    """Raises DataError unless the input is a file."""
    source = pathlib.Path(path)
    try:
        if not source.is_file():
            reason = "not a file, and it is read twice; write it to one" if source.exists() else "no such file"
            raise DataError(f"{source}: {reason}; correct --input")
    except OSError as e:
        raise DataError(f"{source}: cannot be read ({e.strerror}); correct --input") from e
