"""`embed export`: a model for sentence-transformers and the servers around it, as GGUF, StableHLO or ONNX, or as a packed bundle.

The sentence-transformers folder is written in the dialect that old and new versions, TEI and vLLM read alike, with every prompt
under every key that MTEB asks for, and a model card. parity.json holds texts in eight scripts with token ids and vectors of the
trained model: send them to any server and compare. What a reader cannot repeat, such as text normalisation, is printed and stands
in the model card.

A model with an image tower becomes a folder that transformers loads as TIPSv2 or Dinov2, and sentence-transformers 6 as a model of
images or a CLIP-like one; with --format=stablehlo or onnx each tower is a program of its own, in the folders text and image. The
formats tips-jax and tips-pytorch write .npz files with the names of TIPS' own code. parity.json then holds pictures too.

--format=gguf writes a file for llama.cpp, with weights in float32, float16, bfloat16, or in blocks of 32 that share a scale (q8_0,
q4_0). What they lose is printed, and what llama.cpp lacks is refused.

--format=bundle writes a bundle whose weights are packed to 4 or 8 bits, which every command takes as a MODEL. Of a model that was
trained with Recipe.quantization it has every value; any other model is rounded: compare it by `embed evaluate`.

--format=bundle --dims=N truncates the embedding to its first N values. --principal_components=VECTORS projects it first on the
principal components of VECTORS, which `embed encode MODEL` wrote from texts like those that will be compared. The first N
components keep more of the inner products than the first N values of a model do; all of them keep the cosines. Binary vectors
get worse by the projection, as the last components are small.
"""

from embed import environment
from embed.commands import options

SUMMARY = (
    "Write a model in a form that other tools load, with parity.json to prove that they give the same vectors. "
    "sentence-transformers needs no torch here; onnx needs the extra [export], gguf the extra [gguf]."
)
FORMATS = (
    "sentence-transformers",
    "stablehlo",
    "onnx",
    "gguf",
    "bundle",
    "tips-jax",
    "tips-pytorch",
)  # as workflows.export knows them

log_path = options.log_beside_output


def add_arguments(parser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", type=options.path, help="run folder, checkpoint step folder or bundle"
    )
    parser.add_argument("output", metavar="OUTPUT", type=options.path, help="the new folder")
    parser.add_argument("--format", default=FORMATS[0], help=f"{', '.join(FORMATS)} (default: {FORMATS[0]})")
    parser.add_argument(
        "--dtype",
        default="float32",
        help="type of the weights: float32 (default); bfloat16 of sentence-transformers and gguf; float16, q8_0, q4_0 of gguf",
    )
    parser.add_argument(
        "--scores", metavar="RESULTS_JSON", help="a results.json of `embed evaluate`, for the model card"
    )
    parser.add_argument(
        "--quantization",
        help="of a bundle: int8_blocks, int4_blocks or mixed_channels (default: what the model was trained for)",
    )
    parser.add_argument(
        "--principal_components",
        metavar="VECTORS",
        type=options.path,
        help="of a bundle: project the embedding on the principal components of these vectors of the model",
    )
    parser.add_argument(
        "--dims", type=options.count, help="of a bundle: the number of values of the embedding (default: all)"
    )


def run(arguments) -> None:
    environment.start()
    from embed.workflows import export

    export.run(
        arguments.model,
        arguments.output,
        format=arguments.format,
        dtype=arguments.dtype,
        scores=arguments.scores,
        quantization=arguments.quantization,
        principal_components=arguments.principal_components,
        dims=arguments.dims,
    )
