"""The steps of a recipe compiled for TPU slices that need not be there, and a table of what they need of a chip."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import jax

from embed import console, documents, environment, files, sharding
from embed.compilation import advice, chips
from embed.compilation.forecast import Step
from embed.data import text_features
from embed.errors import ConfigError, DataError, UsageError
from embed.evaluation import report
from embed.models import api
from embed.models.transformer import REMAT
from embed.sharding import MeshShape
from embed.workflows import init_from
from embed.workflows.recipe import Recipe
from embed.workflows.recipe_steps import plan_of

STEPS = ("train", "evaluate", "encode")


def run(
    recipe: Recipe,
    *,
    name: str = "recipe",
    topologies: Sequence[str] = (chips.HERE,),
    meshes: Sequence[MeshShape] = (),
    micro_batches: int | None = None,
    steps: Sequence[str] = STEPS,
    advise: bool = False,
    profile: bool = False,
    output=None,
    add: bool = False,
) -> None:
    """Compiles `steps` of a recipe for every slice and mesh, and prints what they need of a chip.

    `topologies` are slices such as 'v5e:16x16', for which `environment.prepare_for_topologies` must have been called before
    JAX was imported, or 'here'. `meshes` default to the recipe's, `micro_batches` to as few as fit. `advise` tries meshes and
    ways to run the layers and names the best. `profile` prints where the work of each step goes. `output` is a markdown file for
    the table; with `add` it keeps the rows of anything else.
    A step that does not fit is a ConfigError, after everything was written.
    """
    for step in steps:
        if step not in STEPS:
            raise UsageError(f"--steps: no step {step!r}; known: {', '.join(STEPS)}")
    if output and add:
        _kept(pathlib.Path(output))
    if recipe.model is None:
        recipe = init_from.complete(recipe)
    rows = []
    for topology in topologies:
        compiled = _Slice(recipe, name, topology, profile)
        compiled.introduce()
        if advise:
            rows += compiled.advise()
        else:
            for mesh in meshes or [None]:
                rows += compiled.compile(mesh, micro_batches, steps)
    print(f"\n{_table(rows)}\n")
    if output:
        _write(pathlib.Path(output), rows, add)
    large = [f"{row.step.name} on {row.topology}" for row in rows if row.step.fits is False]
    if large and not advise:
        raise ConfigError(
            f"does not fit: {', '.join(large)}; see --advise, or take a larger slice, MeshShape.fsdp, remat"
        )


@dataclasses.dataclass(frozen=True)
class _Row:
    """One compiled step and what it was compiled from."""

    recipe: str
    topology: str
    layers: advice.Layers | None  # of a training step
    step: Step


class _Slice:
    """A recipe on one slice."""

    def __init__(self, recipe: Recipe, name: str, topology: str, profile: bool):
        self._recipe, self._name, self._topology, self._profile = recipe, name, topology, profile
        self._devices = chips.devices_of(topology)

    def introduce(self) -> None:
        """Says what is compiled, and for what."""
        chip, recipe = chips.chip_of(self._devices[0]), self._recipe
        each = f", {console.size_text(chip.memory)} each" if chip else ""
        print(
            f"topology   {self._topology}: {len(self._devices)} x {chip.name if chip else self._devices[0].device_kind}{each}"
        )
        shapes = jax.eval_shape(api.build(recipe.model).init, jax.random.key(0))
        count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
        texts = ", ".join(f.title for f in text_features.text_features(recipe.record_features) if f.each != (0,))
        print(
            f"recipe     {self._name}: {count:,} parameters, {recipe.batch_size:,} examples a batch"
            + (f", each with {texts}" if texts else ""),
            flush=True,
        )

    def compile(self, shape: MeshShape | None, micro_batches: int | None, steps: Sequence[str]) -> list[_Row]:
        """Returns the rows of the steps on one mesh, and says what each needs."""
        mesh = sharding.make_mesh(shape or self._recipe.mesh, self._devices)
        rows = []
        if "train" in steps:
            rows.append(self._train(mesh, micro_batches or self._recipe.micro_batches))
        if "evaluate" in steps:
            rows.append(self._row(plan_of(self._recipe).evaluate(mesh)))
        if "encode" in steps:
            rows.append(self._row(plan_of(self._recipe).encode(chips.host_of(self._topology))))
        return rows

    @property
    def _layers(self) -> advice.Layers:
        """How the recipe runs its layers."""
        return advice.Layers(*api.layers_of(self._recipe.model))

    def _train(self, mesh, micro_batches: int | None, layers: advice.Layers | None = None) -> _Row:
        return self._row(plan_of(self._recipe, layers).train(mesh, micro_batches), layers or self._layers)

    def _row(self, step: Step, layers: advice.Layers | None = None) -> _Row:
        if not self._profile:
            step = dataclasses.replace(step, parts=())
        row = _Row(self._name, self._topology, layers, step)
        print(_line(row), flush=True)
        if self._profile and step.parts:
            print(f"\n{_profile(step)}\n", flush=True)
        return row

    def advise(self) -> list[_Row]:
        """Tries one thing after the other, keeps what is better, and names the best training step that fits."""
        print(
            "advice     tries other meshes, remat policies, and the scan over the layers unrolled or not: a compilation each, of "
            "minutes where many layers are unrolled",
            flush=True,
        )
        rows: dict[tuple, _Row] = {}

        def attempt(shape: advice.Shape, layers: advice.Layers) -> Step:
            mesh = sharding.make_mesh(MeshShape(*shape), self._devices)
            rows[shape, layers] = self._train(mesh, None, layers)
            return rows[shape, layers].step

        shape = sharding.make_mesh(self._recipe.mesh, self._devices).devices.shape
        tried = advice.search(attempt, tuple(shape), self._layers, list(REMAT), self._recipe.batch_size)
        ranked = [rows[change] for change in tried]
        if ranked[0].step.fits is False:
            print(f"advice     nothing that was tried fits on {self._topology}; take a larger slice or a smaller batch")
        else:
            print(f"advice     {self._topology}: {_settings(ranked[0])}")
        return ranked


def _settings(row: _Row) -> str:
    data, fsdp, tensor = row.step.mesh
    unroll = "num_layers" if row.layers.unrolled else "1 where it is num_layers"
    return (
        f"MeshShape.data = {data}, fsdp = {fsdp}, tensor = {tensor}, remat = {row.layers.remat!r}, unroll = {unroll}, "
        f"Recipe.micro_batches = {row.step.micro_batches}"
    )


def _line(row: _Row) -> str:
    """Returns what one step needs, in a few lines."""
    step = row.step
    mesh = " x ".join(f"{name} {n}" for name, n in zip(("data", "fsdp", "tensor"), step.mesh))
    parts = f", {row.step.micro_batches} micro-batches" if row.step.micro_batches > 1 else ""
    layers = "" if row.layers is None else f", layers: {row.layers}"
    head = f"{step.name:10} on {mesh}{parts}{layers} ({step.seconds_to_compile:.0f} s to compile)"
    if step.refused:
        return f"{head}\n           does not fit: {step.refused}"
    of = f" of {console.size_text(step.chip.memory)}" if step.chip else ""
    kinds = ", ".join(f"{c.count} {c.kind} {console.size_text(c.bytes)} among {c.group}" for c in step.work.collectives)
    lines = [
        head,
        f"           {console.size_text(step.memory)}{of} a chip: {console.size_text(step.lasting)} arguments and results, "
        f"{console.size_text(step.temporary)} temporary{'' if step.fits is not False else '; does not fit'}",
        f"           {console.digits(step.work.flops / 1e12)} TFLOP a chip, {step.executed:.2f} run for one that the model needs; "
        f"{console.size_text(step.work.bytes)} to and from memory",
        f"           exchanged: {kinds or 'nothing'}",
    ]
    if step.bounds:
        bounds = ", ".join(f"{_time(s)} by {what}" for what, s in step.bounds.items())
        lines.append(f"           at least {bounds}")
    if step.compiler_seconds:
        kernels = "; kernels of attention at half of the peak" if step.work.kernel_flops else ""
        lines.append(
            f"           the compiler estimates {_time(step.compiler_seconds)}, {step.utilization:.0%} of the chip's peak{kernels}"
        )
    if step.work.unknown_loops:
        lines.append(f"           {step.work.unknown_loops} loops of unknown length are counted once")
    return "\n".join(lines)


def _profile(step: Step) -> str:
    """Returns the table of where the work of a step goes, what takes longest first."""
    header = ["part", "ms", "%", "forward", "again", "backward", "TFLOP", "GB", "bound ms", "by"]
    total = sum(part.seconds for part in step.parts)
    rows = []
    for part in step.parts:
        seconds = [part.seconds, part.seconds / total / 10 if total else 0.0, *part.passes]
        by = "-"
        if step.chip is not None:
            limits = {"memory": part.bytes / step.chip.bandwidth, "compute": part.flops / step.chip.flops}
            by = next((what for what, seconds in limits.items() if seconds >= part.bound), "exchange")
        cells = [f"{1e3 * s:.1f}" if total else "-" for s in seconds]
        rows.append(
            [part.name, *cells, f"{part.flops / 1e12:.2f}", f"{part.bytes / 1e9:.2f}", f"{1e3 * part.bound:.1f}", by]
        )
    return report.align([header, *rows])


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.9995 else f"{console.digits(1e3 * seconds)} ms"


_HEADER = [
    "recipe", "step", "topology", "data x fsdp x tensor", "micro-batches", "layers", "GB a chip", "of", "fits",
    "run / model FLOPs", "exchanged GB", "compiler ms", "estimated MFU", "bound ms", "by",
]  # fmt: skip


def _cells(row: _Row) -> list[str]:
    step = row.step
    head = [
        row.recipe,
        step.name,
        row.topology,
        " x ".join(map(str, step.mesh)),
        str(row.step.micro_batches),
        "-" if row.layers is None else str(row.layers),
    ]
    size = "-" if step.chip is None else f"{step.chip.memory / 1e9:.1f}"
    if step.refused:
        return [*head, "-", size, "no", *["-"] * 6]
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
        f"{step.utilization:.1%}" if step.utilization else "-",
        f"{1e3 * step.bounds[what]:.1f}" if step.bounds else "-",
        what,
    ]


def _table(rows) -> str:
    return report.align([_HEADER, *map(_cells, rows)])


def _kept(path: pathlib.Path) -> list[dict]:
    """Returns the rows that are beside a table; those of another version of `embed`, with other columns, are a DataError."""
    beside = path.with_suffix(".json")
    rows = documents.read_json(beside).get("steps") if beside.is_file() else []
    widths = (
        {len(row.get("cells", ())) if isinstance(row, dict) else 0 for row in rows} if isinstance(rows, list) else {0}
    )
    if widths - {len(_HEADER)}:
        raise DataError(
            f"{beside}: another version of embed wrote it, with other columns; leave --add out, or write elsewhere"
        )
    return rows


def _write(path: pathlib.Path, rows, add: bool) -> None:
    """Writes the table, and everything that is known of every row; `add` keeps what is there of anything else."""
    records = [
        {
            "recipe": r.recipe, "topology": r.topology, "layers": None if r.layers is None else dataclasses.asdict(r.layers),
            **dataclasses.asdict(r.step), "fits": r.step.fits, "bounds": dict(r.step.bounds), "cells": _cells(r),
        }
        for r in rows
    ]  # fmt: skip
    beside = path.with_suffix(".json")
    if add:
        what = lambda row: (row["recipe"], row["topology"], list(row["mesh"]), row["name"])  # noqa: E731
        new = [what(row) for row in records]
        records = sorted(
            [row for row in _kept(path) if what(row) not in new] + records,
            key=lambda row: (row["recipe"], row["topology"], STEPS.index(row["name"])),
        )
    text = report.align([_HEADER, *(row["cells"] for row in records)])
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, f"# What the steps need of a chip\n\nMade by `embed compile`.\n\n{text}\n")
    files.write_json(beside, {"steps": records, "environment": environment.describe()})
    print(f"wrote {path} and {beside.name}")
