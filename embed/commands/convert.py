"""`embed convert`: a checkpoint of another tool into a bundle.

The folder must have a tokenizer.json. Every entry of its files that decides tokens or vectors is honoured or refused
(embed/interop/known_entries.py), as transformers 5 and sentence-transformers 6 read it. Where a folder says a thing twice, the
command takes what they take and prints a line, or refuses. Every tensor that is missing, left over or of another shape is
listed. Nothing of the folder is executed.

Folders without prompts get them with --prompt query='query: '. A causal Gemma 3 becomes a start for training with
--bidirectional. Text normalisation is part of a model: a converted model reads texts as they are, as its own tools do, and a
model that is trained here normalises them to NFC and strips white space at their ends. --text_normalization chooses.

Towers of images: a folder of TIPSv2 or Dinov2 (with registers or without), a folder with TIPS' *_vision.npz, *_text.npz and
tokenizer.model, an .npz of its image tower, or a Dinov2 as ONNX. The names of TIPS' JAX and PyTorch code are both read.
"""

import sys

from embed import environment
from embed.commands import options
from embed.errors import UsageError

SUMMARY = (
    "Read a Hugging Face or sentence-transformers folder (safetensors, config.json, tokenizer) into a bundle that every "
    "other command takes. Families: BERT, XLM-RoBERTa, Gemma 3 text, EmbeddingGemma 2 text, T5Gemma, ModernBERT, Qwen3; "
    "TIPS, TIPSv2 and Dinov2 for images. Needs no torch."
)

log_path = options.log_beside_output


def add_arguments(parser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", type=options.path, help="the folder or file, or a name on the Hugging Face Hub"
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
    parser.add_argument(
        "--texts_alone",
        action="store_true",
        help="leave out the image tower of an EmbeddingGemma 2; by default texts, images and texts with images are read",
    )
    parser.add_argument(
        "--with_decoder",
        action="store_true",
        help="read the decoder of an encoder-decoder (T5Gemma) too, to train both as a language model",
    )


def run(arguments) -> None:
    environment.start()
    from embed.workflows import convert

    convert.run(
        arguments.source,
        arguments.output,
        revision=arguments.revision,
        prompts=_prompts(arguments.prompt),
        matryoshka_dims=options.numbers("matryoshka_dims", arguments.matryoshka_dims, int) or (),
        max_length=arguments.max_length,
        text_normalization=arguments.text_normalization,
        bidirectional=arguments.bidirectional,
        with_decoder=arguments.with_decoder,
        texts_alone=arguments.texts_alone,
    )
    print(f"try        embed search {arguments.output} --corpus=FILE 'a query'", file=sys.stderr)


def _prompts(given) -> dict[str, str]:
    prompts = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise UsageError(f"--prompt={item}: give NAME=TEXT")
        if name == "none":
            raise UsageError(f"--prompt={item}: 'none' is the text alone; give the prompt another name")
        prompts[name] = text if "{content}" in text else text + "{content}"
    return prompts
