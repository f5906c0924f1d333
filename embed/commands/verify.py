"""`embed verify`: does an export give the trained model's vectors?

The digests of MANIFEST.json are checked, and that no file was added. The allowed error is fixed by the type of the weights that the
folder holds; --tolerance can only lower it.
"""

from embed import environment
from embed.commands import options

SUMMARY = (
    "Check every file of an export, then run the texts of its parity.json through it with the code of its README and the tools "
    "named there (sentence-transformers, onnxruntime or jax), and print the largest error. A GGUF's weights are read back and run "
    "here, and by llama.cpp where its Python package is installed. Exits with 70 when token ids differ or the error is above "
    "the tolerance."
)


def add_arguments(parser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=options.path, help="an export of `embed export`")
    parser.add_argument(
        "--tolerance",
        type=options.positive,
        help="largest difference of any number, if less than what the weights' type allows (1e-5 for float32)",
    )


def run(arguments) -> None:
    environment.start()
    from embed.workflows import verify

    verify.run(arguments.folder, tolerance=arguments.tolerance)
