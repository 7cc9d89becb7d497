"""How long a program takes by what XLA's compiler for TPUs has scheduled; no TPU is needed to compile.

    schedule(compiled.as_text(), folder)

The compiler writes an estimate of cycles beside most instructions of a program (`estimated_cycles`). Of a kernel of
Pallas it writes none: that is counted here in the bundles that it dumps (one bundle a cycle, the kernel's loop as often
as its grid is large, both sides of each condition). What an instruction moves from and to the device's memory the
estimate leaves out, so an instruction takes the longer of its cycles and of its bytes. None of it is a measurement.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

DUMP = (
    "--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final_bundles"
    " --xla_jf_dump_llo_static_gaps=false"
)
"""LIBTPU_INIT_ARGS: the bundles of each instruction, in a folder."""
KERNEL = "tpu_custom_call"
BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
}
FREE = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional", "call")
"""Instructions that move nothing."""

_COMPUTATION = re.compile(r"^(ENTRY )?%?([^ ]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%([^ ]+) = (\(.*?\)|[^ ]+) ([\w\-]+)\((.*?)\)(?=,|$)(.*)")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLED = re.compile(r"(?:body|to_apply|branch_computations)=\{?((?:%[^ ,}]+(?:, )?)+)")


@dataclass(frozen=True)
class Chip:
    """A TPU that programs are compiled for."""

    topology: str
    """As `jax.experimental.topologies` names it."""
    kind: str
    """As worker/ceilings.py knows its peak."""
    gigahertz: float
    gb_per_s: float
    """Of its memory."""


CHIPS = {
    "v5e": Chip("v5e:2x2", "TPU v5 lite", gigahertz=1.5, gb_per_s=819),
    "v6e": Chip("v6e:2x2", "TPU v6 lite", gigahertz=1.75, gb_per_s=1640),
}
"""Memory's speed from cloud.google.com/tpu/docs; the clock is the peak over the operations that the matrix units of a
core do in a cycle (2 x 4 x 128 x 128 of v5e, 2 x 4 x 256 x 256 of v6e)."""


class Instruction(NamedTuple):
    name: str
    opcode: str
    source: str
    """JAX's operation, in its scopes."""
    cycles: int
    moved: int
    """Bytes from and to the device's memory."""
    times: int
    """How often it runs."""

    def seconds(self, chip: Chip) -> float:
        """All its runs together."""
        return self.times * max(self.cycles / chip.gigahertz, self.moved / chip.gb_per_s) / 1e9


def schedule(text: str, dumped: Path) -> list[Instruction]:
    """The instructions of a program for a TPU (`as_text()`) that take time, and whose bundles lie in a folder.

    A loop whose length is an input counts once.
    """
    return [each for each in instructions(text, kernels_of(text, dumped)) if each.cycles]


def instructions(text: str, kernels: Mapping[str, int]) -> Iterator[Instruction]:
    """All that a compiled program does; of some backends the cycles are not told, and 0."""
    computations = dict(_computations(text))
    return _of(computations, computations[""][0], 1, kernels)


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each computation's lines by its name; under no name the entry's name."""
    name, lines = "", list[str]()
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            name, lines = found[2], []
            if found[1]:
                yield "", [name]
        elif line.startswith("  "):
            lines.append(line)
        elif line.startswith("}") and name:
            yield name, lines


def _of(
    computations: Mapping[str, list[str]], name: str, times: int, kernels: Mapping[str, int]
) -> Iterator[Instruction]:
    types: dict[str, str] = {}
    for found in filter(None, map(_INSTRUCTION.match, computations.get(name, []))):
        own, kind, opcode, operands, rest = found.groups()
        types[own] = kind
        if opcode in ("while", "conditional", "call"):
            trips = times * _trips(computations, rest)
            for called in re.findall(r"%([^ ,}]+)", "".join(_CALLED.findall(rest))):
                yield from _of(computations, called, trips, kernels)
        if opcode in FREE or opcode.endswith(("-start", "-done")):
            continue
        cycles = re.search(r'"estimated_cycles":"(\d+)"', rest)
        counted = int(cycles[1]) if cycles else _of_kernel(own, kind, opcode, kernels)
        source = re.search(r'op_name="([^"]*)"', rest)
        moved = _moved(kind, operands, types, source[1] if source else "")
        yield Instruction(own, opcode, source[1] if source else "", counted, moved, times)


def _of_kernel(name: str, kind: str, opcode: str, kernels: Mapping[str, int]) -> int:
    """Of kernels that are alike the compiler dumps one."""
    return kernels.get(name, kernels.get(_shape(kind), 0)) if opcode == "custom-call" else 0


def _shape(kind: str) -> str:
    return kind.partition("{")[0]


def _trips(computations: Mapping[str, list[str]], rest: str) -> int:
    """Turns of a loop: the constant that its condition holds."""
    condition = re.search(r"condition=%([^ ,]+)", rest)
    lines = computations.get(condition[1], []) if condition else []
    return max(map(int, re.findall(r" constant\((\d+)\)", "\n".join(lines))), default=1)


def _moved(kind: str, operands: str, types: Mapping[str, str], source: str) -> int:
    """What lies in the device's memory; a slice's whole array is not read, and not known to be sliced here."""
    if "dynamic_" in source or "gather" in source:
        return 0
    return sum(
        _in_memory(each) for each in [kind, *(types.get(name, "") for name in re.findall(r"%([^ ,)]+)", operands))]
    )


def _in_memory(kind: str) -> int:
    """Bytes of the arrays of a type, but of those that lie in vector memory: S(1)."""
    total = 0
    for dtype, sizes, layout in _ARRAY.findall(kind):
        if "S(" not in layout:
            count = BYTES.get(dtype, 0)
            for size in filter(None, sizes.split(",")):
                count *= int(size)
            total += count
    return total


def kernels_of(text: str, folder: Path) -> dict[str, int]:
    """Cycles of a program's kernels, from what was dumped of it: bundles, the loop's as often as the loop turns.

    By name; and by the shape of the first operand, for those of which no bundles were dumped as they are alike.
    """
    names = set(re.findall(rf'%([^ ]+) = .* custom_call_target="{KERNEL}"', text))
    cycles: dict[str, int] = {}
    for path in folder.glob("*-final_bundles.txt"):
        if _named(path) in names and "analysis" not in path.name:
            dumped = path.read_text()
            operand = re.search(r"shape: (\w+\[[\d,]+\]), index: 0", dumped)
            cycles |= dict.fromkeys([_named(path), operand[1] if operand else ""], _cycles(dumped))
    return cycles


def _named(path: Path) -> str:
    return re.sub(r"^\d+-|-\d+-final_bundles.txt$", "", path.name)


def _cycles(text: str) -> int:
    lines = [line for line in text.splitlines() if re.match(r"\s*(0x[0-9a-f]+|0)\s", line)]
    begins = next((at for at, line in enumerate(lines) if " LB:" in line), 0)
    ends = max((at for at, line in enumerate(lines) if "sbr.rel" in line), default=len(lines) - 1)
    trips = max(map(int, re.findall(r", (\d+) +/\* loop exit test", text)), default=1)
    return (ends - begins + 1) * trips + len(lines) - (ends - begins + 1)


def by_kind(scheduled: list[Instruction], chip: Chip, kinds: tuple[str, ...]) -> Mapping[str, float]:
    """Seconds by the innermost of these scopes in which an instruction stands; copies apart, and the rest."""
    seconds: dict[str, float] = defaultdict(float)
    for each in scheduled:
        scopes = [part for part in each.source.split("/") if part in kinds]
        copies = each.opcode in ("copy", "pad", "slice", "transpose")
        seconds["copies" if copies else scopes[-1] if scopes else "the rest"] += each.seconds(chip)
    return seconds
