"""`embed average`: checkpoints into a soup."""

import pathlib

from embed.commands import runtime

SUMMARY = (
    "Average the parameters of checkpoints into one bundle. Inputs must share tree, shapes, dtypes and vocabulary."
)


def add_arguments(parser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="MODEL", help="run folders, checkpoint step folders or bundles")
    parser.add_argument("--output", required=True, help="the new bundle")
    parser.add_argument("--method", default="uniform", help="uniform (default), weighted, or interpolate (base, other)")
    parser.add_argument("--weights", help="comma-separated, one per input, summing to 1 (weighted)")
    parser.add_argument("--alpha", type=float, help="share of the second input (interpolate; default 0.5)")
    parser.add_argument("--last", type=int, help="of each run folder take its newest LAST checkpoints")
    parser.add_argument("--item", default="params", help="params (default), or ema for the moving averages")


def run(arguments) -> None:
    runtime.start()
    from embed import bundles, checkpoints, files
    from embed.averaging import soup
    from embed.errors import StorageError, UsageError

    output = pathlib.Path(arguments.output)
    if output.exists():
        raise StorageError(f"{output}: already exists; choose another --output or remove it first")
    try:
        given = [float(w) for w in arguments.weights.split(",")] if arguments.weights else None
    except ValueError as e:
        raise UsageError(f"--weights={arguments.weights}: not numbers separated by commas") from e
    folders = soup.expand(arguments.inputs, arguments.last)
    weights = soup.weights_for(arguments.method, len(folders), given, arguments.alpha)
    for folder, weight in zip(folders, weights):
        print(f"{weight:.4f}  {folder}", flush=True)
    params = soup.average(folders, weights, arguments.item)
    description = bundles.read_model_json(folders[0])
    description["lineage"] = soup.lineage(folders, weights, arguments.method)
    tokenizer = bundles.tokenizer_file(folders[0])
    contents = bundles.contents(description, tokenizer.name, tokenizer.read_bytes())
    checkpoints.write_bundle(output, params, contents)
    print(
        f"wrote {output}: {arguments.method} average of {len(folders)} checkpoints, digest {files.folder_digest(output)[:12]}"
    )
