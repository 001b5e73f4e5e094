"""`explain memory`: what a program holds while it runs, when that is most, and whose it is.

Inputs and outputs are held for the whole run; values in between share one arena, by the compiler's
memory plan.  So the peak is known before the program runs.
"""

from __future__ import annotations

from typing import Any

from lazygrad.cli import human_bytes
from lazygrad.explain.lines import place
from lazygrad.explain.svg import PALETTE, Picture
from lazygrad_compiler.memory_plan import Lifetime
from lazygrad_compiler.pipeline import Stages


def describe(stages: Stages) -> dict[str, Any]:
    """Bytes by kernel call, the peak, and the values that own it, largest first."""
    inputs = sum(leaf.nbytes for leaf in stages.graph.inputs())
    outputs = sum(output.nbytes for output in stages.opt.outputs)
    lifetimes = stages.plan.lifetimes
    steps: list[dict[str, Any]] = [
        {"kernel": number, "about": launch.about, "lines": place(launch.location),
         "arena_live_bytes": _covered([v for v in lifetimes if v.first <= number <= v.last])}
        for number, launch in enumerate(stages.launches)
    ]
    peak = max(steps, key=lambda step: step["arena_live_bytes"], default=None)
    at = peak["kernel"] if peak else 0
    owned = [(v.node, v.node.nbytes, "between kernels") for v in lifetimes
             if v.first <= at <= v.last]
    owned += [(leaf, leaf.nbytes, "input") for leaf in stages.graph.inputs()]
    owned += [(output, output.nbytes, "output") for output in stages.opt.outputs]
    owned.sort(key=lambda entry: -entry[1])
    return {
        "inputs_bytes": inputs, "outputs_bytes": outputs, "arena_bytes": stages.plan.arena_bytes,
        "total_bytes": inputs + outputs + stages.plan.arena_bytes,
        "peak": {"kernel": at, "bytes": inputs + outputs + (
            peak["arena_live_bytes"] if peak else 0)},
        "steps": steps,
        "owners": [
            {"bytes": nbytes, "role": role, "op": node.op, "lines": place(node.location),
             "type": f"{node.dtype.name}{list(node.shape)}"}
            for node, nbytes, role in owned
        ],
    }


def _covered(alive: list[Lifetime]) -> int:
    """Bytes of the arena that some value occupies; values written over one another count once."""
    total = end = 0
    for value in sorted(alive, key=lambda value: value.offset):
        stop = value.offset + value.nbytes
        total += max(stop - max(value.offset, end), 0)
        end = max(end, stop)
    return total


def text(described: dict[str, Any], most: int = 8) -> str:
    """The timeline as bars, and the owners of the peak."""
    peak = described["peak"]
    lines = [f"peak {human_bytes(peak['bytes'])} in kernel {peak['kernel']}; held for the run: "
             f"inputs {human_bytes(described['inputs_bytes'])}, "
             f"outputs {human_bytes(described['outputs_bytes'])}, "
             f"arena {human_bytes(described['arena_bytes'])}"]
    base = described["inputs_bytes"] + described["outputs_bytes"]
    for step in described["steps"]:
        live = base + step["arena_live_bytes"]
        bar = "#" * max(round(30 * live / max(peak["bytes"], 1)), 1)
        mark = " <- peak" if step["kernel"] == peak["kernel"] else ""
        lines.append(f"  kernel {step['kernel']:3}  {human_bytes(live):>10}  {bar:30}  "
                     f"{step['about']} ({step['lines']}){mark}")
    lines.append("owners of the peak:")
    for owner in described["owners"][:most]:
        lines.append(f"  {human_bytes(owner['bytes']):>10}  {owner['lines']}  "
                     f"{owner['op']} {owner['type']}, {owner['role']}")
    rest = described["owners"][most:]
    if rest:
        lines.append(f"  {human_bytes(sum(owner['bytes'] for owner in rest)):>10}  "
                     f"in {len(rest)} smaller values")
    return "\n".join(lines)


def picture(stages: Stages, title: str) -> str:
    """SVG: kernel calls from left to right, the arena's addresses from bottom to top, a box for
    the life of each value; below it the inputs and outputs, held throughout.
    """
    described = describe(stages)
    calls = max(len(stages.launches), 1)
    left, top, width, height = 90.0, 40.0, max(360.0, min(calls * 14.0, 1600.0)), 300.0
    total = max(described["total_bytes"], 1)
    image = Picture(left + width + 20, top + height + 60)
    image.text(left, 20, f"{title}: {human_bytes(total)}", 14)

    def up(nbytes: float) -> float:
        return top + height - nbytes / total * height

    base = 0
    for name, nbytes, colour in (("inputs", described["inputs_bytes"], "#cccccc"),
                                 ("outputs", described["outputs_bytes"], "#999999")):
        if nbytes:
            image.rectangle(left, up(base + nbytes), width, nbytes / total * height, colour,
                            f"{name}: {human_bytes(nbytes)}")
            image.text(left - 6, up(base + nbytes / 2) + 4, name, anchor="end")
            base += nbytes
    step = width / calls
    for number, value in enumerate(stages.plan.lifetimes):
        low = base + value.offset
        image.rectangle(left + value.first * step, up(low + value.nbytes),
                        (value.last - value.first + 1) * step, value.nbytes / total * height,
                        PALETTE[number % len(PALETTE)],
                        f"{value.node.op} {value.node.dtype.name}{list(value.node.shape)}, "
                        f"{human_bytes(value.nbytes)}, {place(value.node.location)}")
    at = left + (described["peak"]["kernel"] + 0.5) * step
    image.line(at, top, at, top + height, "#ee6677", dashed=True)
    image.text(at, top - 6, f"peak {human_bytes(described['peak']['bytes'])}", anchor="middle")
    image.line(left, top, left, top + height)
    image.line(left, top + height, left + width, top + height)
    image.text(left + width / 2, top + height + 20, "kernel calls, in order", anchor="middle")
    return str(image)
