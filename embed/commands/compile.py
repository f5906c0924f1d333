"""`embed compile`: a recipe's steps compiled for a TPU slice that need not be there, and what they need of a chip.

The training, evaluation and encoding steps are compiled with every text at its longest. Of a chip are said: memory, FLOPs run
for one that the model needs, traffic, exchanges by kind, the compiler's own estimate of the time, and the bound of the data
sheet. --profile divides time and traffic over attention, MLPs, norms, token table, loss and optimiser.
--mesh=DATA,FSDP,TENSOR tries other meshes; --advise searches mesh, recomputation and micro-batches for the best that fits.
"""

import pathlib

from embed import environment
from embed.buckets import copies
from embed.commands import options
from embed.errors import UsageError

SUMMARY = (
    "Compile the training, evaluation and encoding step of a recipe for the TPU slices named, with no TPU at hand, and say "
    "what they need of a chip: memory, FLOPs, exchange between chips, time. Every text is taken to be as long as the recipe "
    "lets it be. Needs the extra [tpu]; --topology=here compiles for the devices of this machine."
)
STEPS = ("train", "evaluate", "encode")


_HERE = "here"


def add_arguments(parser) -> None:
    options.add_gin_arguments(parser)
    parser.add_argument("--topology", default="here", help="slices, separated by commas: v5e:16x16,v5p:4x4x8 (here)")
    parser.add_argument(
        "--mesh", action="append", help="DATA,FSDP,TENSOR, one of them -1; may be given again (the recipe's)"
    )
    parser.add_argument("--micro_batches", type=options.count, help="parts of a batch (as few as fit)")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"of {', '.join(STEPS)} (all)")
    parser.add_argument(
        "--advise",
        action="store_true",
        help="try meshes, what is recomputed, and micro-batches; name the best that fits",
    )
    parser.add_argument(
        "--profile", action="store_true", help="say where the work of each step goes, by part of the model and pass"
    )
    parser.add_argument("--output", type=options.path, help="markdown file for the table; one .json beside it")
    parser.add_argument(
        "--add", action="store_true", help="keep what the file has of other recipes, slices, meshes and steps"
    )


def run(arguments) -> None:
    if arguments.topology != _HERE:
        environment.prepare_for_topologies()
    environment.start()
    from embed import config
    from embed.workflows import compile
    from embed.workflows.recipe import Recipe

    if arguments.output:
        copies.present(pathlib.Path(arguments.output).with_suffix(".json"))  # which is written beside it
    recipe, _, _ = config.build(Recipe, arguments.gin_file, arguments.gin_bindings)
    compile.run(
        recipe,
        name=" ".join(map(_name, arguments.gin_file)),
        topologies=arguments.topology.split(","),
        meshes=[_mesh(text) for text in arguments.mesh or ()],
        micro_batches=arguments.micro_batches,
        steps=arguments.steps.split(","),
        advise=arguments.advise,
        profile=arguments.profile,
        output=arguments.output,
        add=arguments.add,
    )


def _name(gin_file: str) -> str:
    """Returns what a recipe is called: its file, with its folder where that is one of several."""
    path = pathlib.Path(gin_file)
    several = path.parent.name and path.parent.parent.name == "recipes"
    return f"{path.parent.name}/{path.stem}" if several else path.stem


def _mesh(text: str):
    from embed.sharding import MeshShape

    sizes = options.numbers("mesh", text, int) or ()
    if len(sizes) != 3:
        raise UsageError(f"--mesh={text}: three numbers, DATA,FSDP,TENSOR")
    return MeshShape(*sizes)
