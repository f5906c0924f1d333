"""What a compiled program does on one device, read from its HLO: multiply-adds, memory traffic, collectives, estimated cycles.

XLA's own cost analysis counts the body of a loop once, whatever the number of its turns; here every instruction counts as
often as it runs. The same text is written by the compilers for CPU, GPU and TPU.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\](\{[^{}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*)$")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
# The splash kernels of attention by their names, and the products of matrices in each.
_SPLASH = re.compile(r"splash_m[hq]a_(fwd|dq|dkv)")
_SPLASH_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}
# What they call is a sum or a comparison of two numbers.
_OF_TWO_NUMBERS = ("reduce", "scatter", "sort", "map", "reduce-window", "all-reduce")
# Names for other values, and control: no traffic of their own.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "opt-barrier", "partition-id", "replica-id", "iota",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array of a program. `near` is one that lies in the chip's own fast memory and not in the device's."""

    type: str
    sizes: tuple[int, ...]
    near: bool = False

    @property
    def bytes(self) -> float:
        bits = re.search(r"\d+", self.type)
        width = _BYTES.get(self.type, int(bits.group()) / 8 if bits else 1)
        if self.type.startswith("f8"):
            width = 1
        return width * math.prod(self.sizes)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation: what it gives, from which operands, and the rest of its text."""

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    text: str

    @property
    def called(self) -> list[str]:
        """The computations it runs, in the order of the text."""
        branches = [b.strip().lstrip("%") for names in _BRANCHES.findall(self.text) for b in names.split(",")]
        return _CALLED.findall(self.text) + branches

    def option(self, name: str) -> str | None:
        """The value of name=value or name={value} in its text."""
        match = re.search(rf"\b{name}=(?:\{{([^}}]*)\}}|([^\s,]+))", self.text)
        return None if match is None else match.group(1) if match.group(1) is not None else match.group(2)


@dataclasses.dataclass(frozen=True)
class Collective:
    """A kind of exchange between devices: how often it runs, the bytes one device gets or gives, and the largest group."""

    kind: str
    count: int
    bytes: float
    group: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one instruction, with all that it fuses, costs in all of its runs: the numbers of `Work`, and the bytes of a collective.

    `scope` is the name of what it was traced from, such as 'jit(step)/jvp(Embedder)/encoder/layers/mlp/gate/dot_general', and ''
    where nothing says.
    """

    scope: str
    opcode: str
    flops: float
    kernel_flops: float
    bytes: float
    cycles: float
    exchanged: float = 0.0


@dataclasses.dataclass(frozen=True)
class Work:
    """What one device does in one run of a program. `flops` are those of products of matrices, two a multiply-add; of
    branches the one that has most of them counts. `kernel_flops` of them are in kernels of attention, of which the compiler
    knows neither work nor time.

    `bytes` go to and from the device's memory; `cycles` are the compiler's own estimate and 0 where it makes none;
    `unknown_loops` counts loops whose number of turns the text does not tell: their bodies count once.
    """

    flops: float
    kernel_flops: float
    bytes: float
    cycles: float
    collectives: tuple[Collective, ...]
    unknown_loops: int

    @property
    def exchanged(self) -> float:
        """Bytes of all collectives."""
        return sum(c.bytes for c in self.collectives)


def work(text: str) -> Work:
    """Returns what the HLO of one device does, as `compiled.as_text()` gives it."""
    return Program(text).work()


class Program:
    """The computations of a module by name, each a list of instructions."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry, current = "", None
        for line in text.splitlines():
            header = _HEADER.match(line)
            if header and not line.startswith(" "):
                current = self.computations.setdefault(header.group(2), [])
                self.entry = header.group(2) if header.group(1) else self.entry
            elif current is not None and (match := _LINE.match(line)):
                current.append(_instruction(*match.groups()))
        self._by_name = {i.name: i for body in self.computations.values() for i in body}
        self._inside_of = {i.name: name for name, body in self.computations.items() for i in body}
        self._callers = {called: i for i in self._by_name.values() for called in i.called}

    def costs(self) -> list[Cost]:
        """Returns the cost of every instruction that one run of the entry runs by itself; one that costs nothing is left out."""
        alone: list[list] = []
        for instruction, times, fused in self._run(self.entry, 1.0, False):
            if not fused:
                alone.append([instruction, times, 0.0, 0.0])
            flops = times * self._flops(instruction)
            alone[-1][2] += flops
            alone[-1][3] += flops * (instruction.opcode == "custom-call")
        costs = []
        for instruction, times, flops, kernel_flops in alone:
            traffic, cycles = times * self._traffic(instruction), times * _cycles(instruction)
            kind = instruction.opcode.removesuffix("-start")
            exchanged = times * _exchanged(instruction, kind, _group(instruction)) if kind in COLLECTIVES else 0.0
            if flops or traffic or cycles:
                scope = self._scope(instruction)
                costs.append(Cost(scope, instruction.opcode, flops, kernel_flops, traffic, cycles, exchanged))
        return costs

    def _scope(self, instruction: Instruction) -> str:
        """Returns the name of what an instruction was traced from: of a fusion that of its largest product, of a nameless one
        that of what it reads, or else of the loop or branch that it stands in."""
        if instruction.opcode == "fusion" and instruction.called:
            inside = [(times * self._flops(i), i) for i, times, _ in self._run(instruction.called[0], 1.0, True)]
            flops, largest = max(inside, key=lambda pair: pair[0], default=(0.0, instruction))
            if flops and (name := _named(largest)):
                return name
        waiting, seen = [instruction], {instruction.name}
        while waiting:
            source = waiting.pop(0)
            if name := _named(source):
                return name
            before = [o for o in source.operands if o in self._by_name and o not in seen]
            seen.update(before)
            waiting += [self._by_name[o] for o in before]
        caller = self._callers.get(self._inside_of[instruction.name])
        return "" if caller is None else self._scope(caller)

    def work(self) -> Work:
        """Returns what one run of the entry does."""
        flops, in_kernels, traffic, cycles, unknown = 0.0, 0.0, 0.0, 0.0, 0
        exchanges: dict[str, tuple[Instruction, float]] = {}
        for instruction, times, fused in self._run(self.entry, 1.0, False):
            of_one = times * self._flops(instruction)
            flops, in_kernels = flops + of_one, in_kernels + of_one * (instruction.opcode == "custom-call")
            unknown += instruction.opcode == "while" and self._turns(instruction) is None
            if instruction.opcode.removesuffix("-start") in COLLECTIVES:
                # One that runs beside computation stands in several fusions, each time with its channel.
                channel = instruction.option("channel_id") or instruction.name
                if times >= exchanges.get(channel, (instruction, 0.0))[1]:
                    exchanges[channel] = (instruction, times)
            if not fused:
                traffic += times * self._traffic(instruction)
                cycles += times * _cycles(instruction)
        return Work(flops, in_kernels, traffic, cycles, _collectives(exchanges.values()), unknown)

    def _run(self, name: str, times: float, fused: bool) -> Iterator[tuple[Instruction, float, bool]]:
        """Yields every instruction that a computation runs, how often, and whether inside of a fusion."""
        for instruction in self.computations.get(name, ()):
            yield instruction, times, fused
            opcode = instruction.opcode
            if opcode.endswith("-done") or opcode in _OF_TWO_NUMBERS:
                continue
            turns = self._turns(instruction) or 1 if opcode == "while" else 1
            inside = fused or opcode == "fusion"
            called = instruction.called
            if opcode == "conditional":
                called = [max(called, key=self._flops_of)]
            for name in called:
                yield from self._run(name, times * turns, inside)

    @functools.cache  # noqa: B019
    def _flops_of(self, name: str) -> float:
        return sum(times * self._flops(i) for i, times, _ in self._run(name, 1.0, False))

    @functools.cache  # noqa: B019
    def _turns(self, loop: Instruction) -> int | None:
        """Returns how often a loop turns: as the compiler noted, or from the bound that its condition compares with."""
        noted = re.search(r'known_trip_count"?:?\s*=?\s*\{"?n"?[:=]"?(\d+)', loop.text)
        if noted:
            return int(noted.group(1))
        condition = self.computations.get(loop.option("condition").lstrip("%"), []) if loop.option("condition") else []
        bounds = [re.search(r"constant\((\d+)\)", f"{i.opcode}{i.text}") for i in condition]
        bounds = [int(b.group(1)) for b in bounds if b]
        compared = any("direction=LT" in i.text for i in condition) or any(i.opcode == "fusion" for i in condition)
        return bounds[0] if len(bounds) == 1 and compared else None

    def _operands(self, instruction: Instruction) -> list[tuple[Shape, ...]]:
        return [self._by_name[o].shapes if o in self._by_name else () for o in instruction.operands]

    def _flops(self, instruction: Instruction) -> float:
        if instruction.opcode == "dot":
            left = self._operands(instruction)[0][0].sizes
            contracted = [left[int(d)] for d in (instruction.option("lhs_contracting_dims") or "").split(",") if d]
            return 2.0 * math.prod(instruction.shapes[0].sizes) * math.prod(contracted)
        if instruction.opcode == "convolution":
            return _convolution_flops(instruction, *(shapes[0].sizes for shapes in self._operands(instruction)[:2]))
        if instruction.opcode == "custom-call" and (kernel := _SPLASH.match(instruction.name)):
            return self._splash_flops(instruction, _SPLASH_PRODUCTS[kernel.group(1)])
        return 0.0

    def _splash_flops(self, instruction: Instruction, products: int) -> float:
        """Returns the FLOPs of a splash kernel. Its operands are two tables of the blocks it runs [1, rows, blocks a row], then
        queries [B, H, L, K], keys and values; blocks are square."""
        operands = [shapes[0].sizes for shapes in self._operands(instruction)]
        _, rows, blocks = operands[0]
        batch, heads, length, size = next(sizes for sizes in operands if len(sizes) == 4)
        return 2.0 * products * batch * heads * length * (blocks * length / rows) * size

    def _traffic(self, instruction: Instruction) -> float:
        """Returns the bytes that go to and from the device's memory."""
        if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
            return 0.0
        read = [sum(s.bytes for s in shapes if not s.near) for shapes in self._operands(instruction)]
        written = sum(s.bytes for s in instruction.shapes if not s.near)
        if instruction.opcode == "fusion" and instruction.called:
            read, written = self._of_fusion(instruction, read, written)
        elif instruction.opcode in ("dynamic-slice", "slice", "gather"):
            read = [written]
        elif instruction.opcode == "dynamic-update-slice":
            read, written = [read[1]], read[1]
        return sum(read) + written

    def _of_fusion(self, fusion: Instruction, read: Sequence[float], written: float) -> tuple[list[float], float]:
        """Returns what a fusion reads of its operands and writes: of those it takes or sets a slice of, the slice."""
        read = list(read)
        for number, name in enumerate(self._parameters(fusion.called[0])):
            taken = list(self._uses(fusion.called[0], name))
            if not taken or number >= len(read) or not read[number]:
                continue
            if all(i.opcode in ("dynamic-slice", "slice", "gather") and position == 0 for i, position in taken):
                read[number] = min(read[number], sum(s.bytes for i, _ in taken for s in i.shapes))
            elif all(i.opcode == "dynamic-update-slice" and position == 0 for i, position in taken):
                updates = [self._by_name[i.operands[1]].shapes[0].bytes for i, _ in taken]
                read[number], written = 0.0, max(written - self._by_name[name].shapes[0].bytes, 0.0) + sum(updates)
        return read, written

    @functools.cache  # noqa: B019
    def _parameters(self, computation: str) -> list[str]:
        """Returns the names of a computation's parameters in their order."""
        body = self.computations.get(computation, [])
        numbers = {int(re.match(r"\((\d+)\)", i.text).group(1)): i.name for i in body if i.opcode == "parameter"}
        return [numbers[number] for number in sorted(numbers)]

    def _uses(self, computation: str, name: str) -> Iterator[tuple[Instruction, int]]:
        """Yields (instruction, which operand) of what takes a value in a computation, and inside of the fusions in it."""
        for instruction in self.computations.get(computation, ()):
            for position, operand in enumerate(instruction.operands):
                if operand != name:
                    continue
                if instruction.opcode == "fusion" and instruction.called:
                    inside = instruction.called[0]
                    yield from self._uses(inside, self._parameters(inside)[position])
                elif instruction.opcode == "bitcast":
                    yield from self._uses(computation, instruction.name)
                else:
                    yield instruction, position


def _collectives(exchanges) -> tuple[Collective, ...]:
    """Returns the exchanges (instruction, how often it runs) summed by kind."""
    totals: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0, 1])
    for instruction, times in exchanges:
        kind, group = instruction.opcode.removesuffix("-start"), _group(instruction)
        entry = totals[kind]
        entry[0] += times
        entry[1] += times * _exchanged(instruction, kind, group)
        entry[2] = max(entry[2], group)
    return tuple(Collective(kind, int(n), size, int(group)) for kind, (n, size, group) in sorted(totals.items()))


def _group(instruction: Instruction) -> int:
    """Returns how many devices an exchange is between, from any of the ways that HLO has of writing it."""
    text = instruction.text
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return len(listed.group(1).split(","))
    if tiled := re.search(r"replica_groups=\[(\d+),(\d+)\]", text):
        return int(tiled.group(2))
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh.group(1)))
        return math.prod(int(sizes[name]) for name in re.findall(r"'([^']+)'", mesh.group(2)))
    return 2 if "source_target_pairs" in text else 1


def _instruction(name: str, rest: str) -> Instruction:
    type_text, rest = _cut(rest) if rest.startswith("(") else rest.split(" ", 1)
    rest = rest.lstrip()
    opcode, bracket, rest = rest.partition("(")
    inside, after = _cut(bracket + rest)
    operands = tuple(re.findall(r"%([\w.-]+)", inside)) if opcode not in ("constant", "parameter") else ()
    shapes = tuple(
        Shape(t, tuple(int(n) for n in sizes.split(",") if n), "S(" in (layout or ""))
        for t, sizes, layout in _SHAPE.findall(type_text)
    )
    return Instruction(name, shapes, opcode, operands, inside + after if opcode in ("constant", "parameter") else after)


def _cut(text: str) -> tuple[str, str]:
    """Returns a text that begins with a bracket up to the one that closes it, and the rest."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: i + 1], text[i + 1 :]
    return text, ""


def _named(instruction: Instruction) -> str:
    match = re.search(r'op_name="([^"]*)"', instruction.text)
    return match.group(1) if match else ""


def _cycles(instruction: Instruction) -> float:
    match = re.search(r'"estimated_cycles":"(\d+)"', instruction.text)
    return float(match.group(1)) if match else 0.0


def _exchanged(instruction: Instruction, kind: str, group: int) -> float:
    """Returns the bytes of a collective on one device: of the whole result, of the whole operand where it is scattered."""
    shapes = [s for s in instruction.shapes if s.sizes]
    if instruction.opcode.endswith("-start") and len(shapes) > 1 and kind != "all-reduce":
        shapes = shapes[len(shapes) // 2 :]  # (operands, results)
    return sum(s.bytes for s in shapes) * (group if kind == "reduce-scatter" else 1)


def _convolution_flops(instruction: Instruction, left: Sequence[int], right: Sequence[int]) -> float:
    """Returns the multiply-adds, times two, of a convolution; TPU programs write products of matrices as such.

    A tap that falls on padding, or between dilated values, multiplies nothing and is not counted.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.text)
    of_left, of_right, of_out = ({label: i for i, label in enumerate(part)} for part in labels.groups())
    out = instruction.shapes[0].sizes
    window = _window(instruction.option("window") or "")
    total = 2.0 * out[of_out["b"]] * out[of_out["f"]] * right[of_right["i"]]
    for d in range(len(out) - 2):
        label, (size, stride, low, spread, step) = str(d), window.get(d, (1, 1, 0, 1, 1))
        index = np.arange(out[of_out[label]])[:, None] * stride + np.arange(size)[None, :] * step - low
        inside = (index >= 0) & (index <= (left[of_left[label]] - 1) * spread) & (index % spread == 0)
        total *= int(np.count_nonzero(inside))
    return total


def _window(text: str) -> Mapping[int, tuple[int, int, int, int, int]]:
    """Returns (size, stride, padding before, dilation of the left, of the right side) by spatial dimension."""
    fields = dict(part.split("=", 1) for part in text.split() if "=" in part)
    sizes = [int(n) for n in fields.get("size", "").split("x") if n]

    def numbers(name, default, pick=lambda x: x):
        return [int(pick(n)) for n in fields[name].split("x")] if name in fields else [default] * len(sizes)

    padding = numbers("pad", 0, lambda x: x.split("_")[0])
    columns = (sizes, numbers("stride", 1), padding, numbers("lhs_dilate", 1), numbers("rhs_dilate", 1))
    return dict(enumerate(zip(*columns)))
