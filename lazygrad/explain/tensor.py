"""`tensor.explain()`: what computing a pending tensor would take, without computing it."""

from __future__ import annotations

from lazygrad._core.tensor import Tensor
from lazygrad.cli import human_bytes
from lazygrad.dump.tensors import recorded_graph
from lazygrad.explain import fusion, memory
from lazygrad.explain.lines import place
from lazygrad.explain.roofline import count
from lazygrad_compiler.loops.cost import cost_of
from lazygrad_compiler.pipeline import lower
from lazygrad_compiler.target import host


def explain(tensor: Tensor) -> str:
    """The kernels that would run, with their work and lines; why they are not one; the memory.

    A tensor whose value is there already says so: what made it is gone.
    """
    kind = f"{tensor.dtype.name}{list(tensor.shape)}"
    graph, _ = recorded_graph([tensor])
    if all(node.op in ("input", "const") for node in graph.nodes()):
        return f"{kind}: the value is there; nothing is pending"
    stages = lower(graph, host())
    operations = sum(node.op not in ("input", "const") for node in graph.nodes())
    described = memory.describe(stages)
    calls = len(stages.launches)
    lines = [f"{kind}: pending, {operations} operations in {calls} kernel{'s' * (calls != 1)}; "
             f"peak {human_bytes(described['peak']['bytes'])}"]
    for number, launch in enumerate(stages.launches):
        cost = cost_of(launch.kernel)
        lines.append(f"kernel {number}: {launch.about} ({place(launch.location)}): "
                     f"{count(cost.flops)} flops, {human_bytes(cost.nbytes)}")
    seams = fusion.describe(stages)
    if seams:
        lines += ["not fused:", fusion.text(seams)]
    return "\n".join(lines)
