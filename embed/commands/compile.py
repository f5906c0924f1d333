"""`embed compile`: a recipe's steps compiled for a TPU slice that need not be there, and what they need of a chip."""

import dataclasses
import pathlib

from embed import console, environment
from embed.commands import options

SUMMARY = (
    "Compile the training, evaluation and encoding step of a recipe for the TPU slices named, with no TPU at hand, and say "
    "what they need of a chip: memory, FLOPs, exchange between chips, time. Every text is taken to be as long as the recipe "
    "lets it be. Needs the extra [tpu]; --topology=here compiles for the devices of this machine."
)
STEPS = ("train", "evaluate", "encode")


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
    parser.add_argument("--output", type=options.path, help="markdown file for the table; one .json beside it")
    parser.add_argument(
        "--add", action="store_true", help="keep what the file has of other recipes, slices, meshes and steps"
    )


def run(arguments) -> None:
    from embed.compilation import chips

    if arguments.topology != chips.HERE:
        chips.prepare_environment()
    environment.start()
    from embed import config
    from embed.errors import ConfigError, UsageError
    from embed.workflows import init_from
    from embed.workflows.recipe import Recipe

    steps = arguments.steps.split(",")
    wrong = [s for s in steps if s not in STEPS]
    if wrong:
        raise UsageError(f"--steps: no step {wrong[0]!r}; known: {', '.join(STEPS)}")
    recipe, _, _ = config.build(Recipe, arguments.gin_file, arguments.gin_bindings)
    if recipe.model is None:
        recipe = init_from.complete(recipe)
    name = " ".join(map(_name, arguments.gin_file))
    rows = []
    for topology in arguments.topology.split(","):
        found = _Slice(recipe, name, topology)
        found.introduce()
        if arguments.advise:
            rows += found.advise()
        else:
            for mesh in arguments.mesh or [None]:
                rows += found.compile(_mesh(mesh), arguments.micro_batches, steps)
    text = f"{_table(rows)}\n"
    print(f"\n{text}")
    if arguments.output:
        _write(pathlib.Path(arguments.output), rows, arguments.add)
    large = [f"{row.step.name} on {row.topology}" for row in rows if row.step.fits is False]
    if large and not arguments.advise:
        raise ConfigError(
            f"does not fit: {', '.join(large)}; see --advise, or take a larger slice, MeshShape.fsdp, remat"
        )


def _name(gin_file: str) -> str:
    """Returns what a recipe is called: its file, with its folder where that is one of several."""
    path = pathlib.Path(gin_file)
    several = path.parent.name and path.parent.parent.name == "recipes"
    return f"{path.parent.name}/{path.stem}" if several else path.stem


def _mesh(text: str | None):
    from embed.errors import UsageError
    from embed.sharding import MeshShape

    if text is None:
        return None
    sizes = options.numbers("mesh", text, int)
    if len(sizes) != 3:
        raise UsageError(f"--mesh={text}: three numbers, DATA,FSDP,TENSOR")
    return MeshShape(*sizes)


@dataclasses.dataclass(frozen=True)
class _Row:
    """One compiled step and what it was compiled from."""

    recipe: str
    topology: str
    remat: str
    step: object


class _Slice:
    """A recipe on one slice."""

    def __init__(self, recipe, name: str, topology: str):
        from embed.compilation import chips

        self._recipe, self._name, self._topology = recipe, name, topology
        self._devices = chips.devices_of(topology)

    def introduce(self) -> None:
        """Says what is compiled, and for what."""
        import math

        import jax

        from embed.compilation import chips
        from embed.models import api

        chip, r = chips.chip_of(self._devices[0]), self._recipe
        each = f", {console.size_text(chip.memory)} each" if chip else ""
        print(
            f"topology   {self._topology}: {len(self._devices)} x {chip.name if chip else self._devices[0].device_kind}{each}"
        )
        shapes = jax.eval_shape(api.build(r.model).init, jax.random.key(0))
        count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
        negatives = f" and {r.num_negatives} negatives" if r.num_negatives else ""
        print(
            f"recipe     {self._name}: {count:,} parameters, {r.batch_size:,} pairs a batch, "
            f"texts of {r.lengths.query} and {r.lengths.target} tokens{negatives}",
            flush=True,
        )

    def _plan(self, remat: str | None = None):
        from embed.models import api
        from embed.workflows import forecast

        r = self._recipe
        model = r.model if remat is None else r.model.clone(encoder=r.model.encoder.clone(remat=remat))
        texts = (r.lengths.query, *[r.lengths.target] * (1 + r.num_negatives))
        model = api.build(model)
        return forecast.Plan(
            model=model,
            objective=r.built_objective(model),
            optimizer=r.optimizer,
            caches=tuple(forecast.FullCache(t.name, texts) for t in r.mixture.tasks),
            mixture=r.mixture,
            batch_size=r.batch_size,
            num_negatives=r.num_negatives,
            max_length=r.max_length or max(r.lengths.query, r.lengths.target),
        )

    def compile(self, shape, micro_batches: int | None, steps) -> list[_Row]:
        """Returns the rows of the steps on one mesh, and says what each needs."""
        from embed import sharding
        from embed.compilation import chips

        mesh = sharding.make_mesh(shape or self._recipe.mesh, self._devices)
        rows = []
        if "train" in steps:
            rows.append(self._train(mesh, micro_batches or self._recipe.micro_batches))
        if "evaluate" in steps:
            rows.append(self._row(self._plan().evaluate(mesh)))
        if "encode" in steps:
            rows.append(self._row(self._plan().encode(chips.host_of(self._topology))))
        return rows

    def _train(self, mesh, micro_batches: int | None, remat: str | None = None) -> _Row:
        return self._row(self._plan(remat).train(mesh, micro_batches), remat)

    def _row(self, step, remat: str | None = None) -> _Row:
        remat = remat or getattr(self._recipe.model.encoder, "remat", "none")
        row = _Row(self._name, self._topology, remat if step.name == "train" else "-", step)
        print(_told(row), flush=True)
        return row

    def advise(self) -> list[_Row]:
        """Tries one thing after the other, keeps what is better, and names the best training step that fits."""
        from embed import sharding
        from embed.models.transformer import REMAT

        print("advice     tries other meshes and what is recomputed, a compilation each", flush=True)
        count, tried = len(self._devices), {}

        def attempt(shape: tuple[int, int, int], remat: str) -> _Row:
            if (shape, remat) not in tried:
                mesh = sharding.make_mesh(sharding.MeshShape(*shape), self._devices)
                tried[shape, remat] = self._train(mesh, None, remat)
            return tried[shape, remat]

        def legal(shape) -> bool:
            return count == shape[0] * shape[1] * shape[2] and self._recipe.batch_size % (shape[0] * shape[1]) == 0

        mesh = sharding.make_mesh(self._recipe.mesh, self._devices)
        shape, remat = tuple(mesh.devices.shape), getattr(self._recipe.model.encoder, "remat", "none")
        best = attempt(shape, remat)
        while True:
            data, fsdp, tensor = shape
            near = [
                (data * 2, fsdp // 2, tensor), (data // 2, fsdp * 2, tensor),
                (data, fsdp // 2, tensor * 2), (data, fsdp * 2, tensor // 2),
                (data // 2, fsdp, tensor * 2), (data * 2, fsdp, tensor // 2),
            ]  # fmt: skip
            changes = [(s, remat) for s in near if legal(s)] + [(shape, other) for other in REMAT if other != remat]
            better = min((attempt(*c) for c in changes), key=_badness, default=best)
            if _badness(better) >= _badness(best):
                break
            best, shape, remat = better, better.step.mesh, better.remat
        if best.step.fits is False:
            print(f"advice     nothing that was tried fits on {self._topology}; take a larger slice or a smaller batch")
        else:
            print(f"advice     {self._topology}: {_settings(best)}")
        return sorted(tried.values(), key=_badness)


def _settings(row: _Row) -> str:
    data, fsdp, tensor = row.step.mesh
    return (
        f"MeshShape.data = {data}, fsdp = {fsdp}, tensor = {tensor}, remat = {row.remat!r}, "
        f"Recipe.micro_batches = {row.step.micro_batches}"
    )


def _badness(row: _Row) -> tuple[bool, float, float, float]:
    """Orders steps: those that fit first, then by the time that is expected of them; where the speed of the chip is not known,
    by what is run, then by memory."""
    step = row.step
    return step.fits is False, _seconds(step), step.work.flops if step.work else 0.0, step.memory


def _seconds(step) -> float:
    """Returns the time that is expected: the compiler's estimate, no less than any bound."""
    return max([step.compiler_seconds or 0.0, *step.bounds.values()]) if step.work else float("inf")


def _told(row: _Row) -> str:
    """Returns what one step needs, in a few lines."""
    from embed.console import size_text

    step = row.step
    mesh = " x ".join(f"{name} {n}" for name, n in zip(("data", "fsdp", "tensor"), step.mesh))
    parts = f", {row.step.micro_batches} micro-batches" if row.step.micro_batches > 1 else ""
    again = f", remat {row.remat}" if row.remat not in ("-", "none") else ""
    head = f"{step.name:10} on {mesh}{parts}{again} ({step.seconds_to_compile:.0f} s to compile)"
    if step.refused:
        return f"{head}\n           does not fit: {step.refused}"
    of = f" of {size_text(step.chip.memory)}" if step.chip else ""
    kinds = ", ".join(f"{c.count} {c.kind} {size_text(c.bytes)} among {c.group}" for c in step.work.collectives)
    lines = [
        head,
        f"           {size_text(step.memory)}{of} a chip: {size_text(step.lasting)} arguments and results, "
        f"{size_text(step.temporary)} temporary{'' if step.fits is not False else '; does not fit'}",
        f"           {step.work.flops / 1e12:.3g} TFLOP a chip, {step.executed:.2f} run for one that the model needs; "
        f"{size_text(step.work.bytes)} to and from memory",
        f"           exchanged: {kinds or 'nothing'}",
    ]
    if step.bounds:
        bounds = ", ".join(f"{_time(s)} by {what}" for what, s in step.bounds.items())
        lines.append(f"           at least {bounds}")
    if step.compiler_seconds:
        share = step.model_flops / step.chip.flops / _seconds(step)
        kernels = "; kernels of attention at half of the peak" if step.work.kernel_flops else ""
        lines.append(
            f"           the compiler estimates {_time(step.compiler_seconds)}, {share:.0%} of the chip's peak{kernels}"
        )
    if step.work.unknown_loops:
        lines.append(f"           {step.work.unknown_loops} loops of unknown length are counted once")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


_HEADER = [
    "recipe", "step", "topology", "data x fsdp x tensor", "micro-batches", "remat", "GB a chip", "of", "fits",
    "run / model FLOPs", "exchanged GB", "compiler ms", "bound ms", "by",
]  # fmt: skip


def _cells(row: _Row) -> list[str]:
    step = row.step
    head = [
        row.recipe,
        step.name,
        row.topology,
        " x ".join(map(str, step.mesh)),
        str(row.step.micro_batches),
        row.remat,
    ]
    size = "-" if step.chip is None else f"{step.chip.memory / 1e9:.1f}"
    if step.refused:
        return [*head, "-", size, "no", *["-"] * 5]
    fits = {None: "-", True: "yes", False: "no"}[step.fits]
    what = max(step.bounds, key=step.bounds.get) if step.bounds else "-"
    return [
        *head,
        f"{step.memory / 1e9:.2f}",
        size,
        fits,
        f"{step.executed:.2f}",
        f"{step.work.exchanged / 1e9:.2f}",
        f"{1e3 * step.compiler_seconds:.1f}" if step.compiler_seconds else "-",
        f"{1e3 * step.bounds[what]:.1f}" if step.bounds else "-",
        what,
    ]


def _table(rows) -> str:
    from embed.evaluation import report

    return report.align([_HEADER, *map(_cells, rows)])


def _write(path: pathlib.Path, rows, add: bool) -> None:
    """Writes the table, and everything that is known of every row; `add` keeps what is there of anything else."""
    from embed import documents, files
    from embed.evaluation import report

    told = [
        {
            "recipe": r.recipe, "topology": r.topology, "remat": r.remat,
            **dataclasses.asdict(r.step), "fits": r.step.fits, "bounds": dict(r.step.bounds), "cells": _cells(r),
        }
        for r in rows
    ]  # fmt: skip
    beside = path.with_suffix(".json")
    if add and beside.is_file():
        what = lambda row: (row["recipe"], row["topology"], list(row["mesh"]), row["name"])  # noqa: E731
        new = [what(row) for row in told]
        told = sorted(
            [row for row in documents.read_json(beside)["steps"] if what(row) not in new] + told,
            key=lambda row: (row["recipe"], row["topology"], STEPS.index(row["name"])),
        )
    text = report.align([_HEADER, *(row["cells"] for row in told)])
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, f"# What the steps need of a chip\n\nMade by `embed compile`.\n\n{text}\n")
    files.write_json(beside, {"steps": told, "environment": environment.describe()})
    print(f"wrote {path} and {beside.name}")
