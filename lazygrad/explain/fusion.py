"""`explain fusion`: each pair of neighbouring values in different kernels, with the reason."""

from __future__ import annotations

from typing import Any

from lazygrad.cli import human_bytes
from lazygrad.explain.lines import lines_of
from lazygrad_compiler.fusion.seams import Seam, seams
from lazygrad_compiler.pipeline import Stages


def describe(stages: Stages) -> list[dict[str, Any]]:
    """Every seam of a program, as plain data."""
    return [_described(seam) for seam in seams(stages.opt, stages.partition)]


def _described(seam: Seam) -> dict[str, Any]:
    def value(node: Any, kernel: int) -> dict[str, Any]:
        return {"op": node.op, "type": f"{node.dtype.name}{list(node.shape)}", "kernel": kernel,
                "lines": lines_of(node.location)}

    return {
        "producer": value(seam.producer, seam.kernels[0]),
        "consumer": value(seam.consumer, seam.kernels[1]),
        "reason": seam.reason.name.lower() if seam.reason else "unknown",
        "because": seam.reason.value if seam.reason else "unknown",
        "saved_bytes": seam.saved_bytes,
    }


def text(described: list[dict[str, Any]]) -> str:
    """The seams of one program, two lines each."""
    parts = []
    for seam in described:
        ends = [f"{end['op']} {end['type']} ({', '.join(end['lines']) or 'no line'})"
                for end in (seam["producer"], seam["consumer"])]
        parts.append(f"{ends[0]} | {ends[1]}\n    {seam['because']}; "
                     f"fusing would save {human_bytes(seam['saved_bytes'])}")
    return "\n".join(parts) or "no seam: one kernel, or kernels that share no value"
