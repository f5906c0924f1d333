"""`embed convert`: a Hugging Face or sentence-transformers checkpoint into a bundle."""

import sys

from embed import console, environment
from embed.commands import options

SUMMARY = (
    "Read a Hugging Face or sentence-transformers folder (safetensors, config.json, tokenizer) into a bundle that every "
    "other command takes. Families: BERT, XLM-RoBERTa, Gemma 3 text, T5Gemma encoder, ModernBERT, Qwen3. Needs no torch."
)

log_path = options.log_beside_output


def add_arguments(parser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", type=options.path, help="the folder, or a name on the Hugging Face Hub"
    )
    parser.add_argument("output", metavar="OUTPUT", type=options.path, help="the new bundle")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="prompt of this name: a prefix, or a template with {content}; may be given again",
    )
    parser.add_argument("--matryoshka_dims", help="comma-separated sizes the model is good at (default: what it says)")
    parser.add_argument(
        "--max_length", type=options.count, help="tokens a text is cut at (default: what the folder says)"
    )
    parser.add_argument(
        "--text_normalization",
        default="none",
        help="what is done to a text before its prompt: none (default, as the folder's own tools), or 'NFC, strip'",
    )
    parser.add_argument(
        "--bidirectional",
        action="store_true",
        help="let every token of a causal decoder see the whole text: a start for training, not the same model",
    )


def run(arguments) -> None:
    environment.start()
    from embed import errors, files
    from embed.data import text
    from embed.interop import convert, hub
    from embed.interop import source as sources

    files.check_new(arguments.output)
    if arguments.text_normalization not in text.NORMALIZATIONS:
        known = errors.did_you_mean(arguments.text_normalization, text.NORMALIZATIONS)
        raise errors.UsageError(f"--text_normalization={arguments.text_normalization}{known}")
    dims = options.numbers("matryoshka_dims", arguments.matryoshka_dims, int)
    source = sources.read(
        hub.fetch(arguments.source, arguments.revision),
        prompt_overrides=_prompts(arguments.prompt),
        matryoshka_dims=tuple(dims or ()),
        max_length=arguments.max_length,
        changes={"causal": False} if arguments.bidirectional else None,
    )
    for line in summary(source):
        print(line, flush=True)
    progress = console.progress_bar("reading")
    convert.convert(source, arguments.output, arguments.source, progress, arguments.text_normalization)
    print(f"wrote      {arguments.output}: digest {files.folder_digest(arguments.output)[:12]}")
    print(f"try        embed search {arguments.output} --corpus=FILE 'a query'", file=sys.stderr)


def _prompts(given) -> dict[str, str]:
    from embed.errors import UsageError

    prompts = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise UsageError(f"--prompt={item}: give NAME=TEXT")
        if name == "none":
            raise UsageError(f"--prompt={item}: 'none' is the text alone; give the prompt another name")
        prompts[name] = text if "{content}" in text else text + "{content}"
    return prompts


def summary(source) -> list[str]:
    """Returns what was found in a foreign folder, for a person to read."""
    import math

    import jax

    from embed.models import api
    from embed.trees import flatten

    model = api.build(source.module)
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    encoder = source.module.encoder
    count = sum(math.prod(s.shape) for s in shapes.values())
    sizes = " -> ".join(map(str, (encoder.width, *source.module.projection)))
    return [
        f"model      {source.family.model_type}: {count:,} parameters, {encoder.num_layers} layers of width {encoder.width}",
        f"           {type(source.module.pooling).__name__}, {sizes}, Matryoshka sizes "
        f"{', '.join(map(str, model.matryoshka_dims))}",
        f"tokenizer  {source.tokenizer.vocab_size:,} tokens, texts cut at {source.max_length}",
        f"prompts    {_prompt_line(source.prompts)}",
        *(f"note       {note}" for note in source.notes),
    ]


def _prompt_line(prompts) -> str:
    used = [f"{name}: {text!r}" for name, text in prompts.items() if text != "{content}"]
    return f"{len(used)}, such as {used[0]}" if used else "none"
