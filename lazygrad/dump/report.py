"""A dump as one HTML file: it needs no network, no other file and no program but a browser.

For each program a picture with its kernels as boxes, the figures of each kernel, and a page for
each: loop IR, LLVM and assembly side by side.  A click on a line marks those that belong to it in
the other two (`lazygrad_compiler.llvm.lines`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from lazygrad.dump.describe import lines_of
from lazygrad.dump.options import counted
from lazygrad.dump.page import SCRIPT, STYLE
from lazygrad.dump.picture import picture_of
from lazygrad.dump.stages import EXPLANATIONS, DumpedProgram
from lazygrad.dump.svg import STYLE as PICTURE_STYLE
from lazygrad.dump.svg import svg_of
from lazygrad_compiler.ir.node import Location
from lazygrad_compiler.llvm.lines import LinkedLine, assembly_lines, llvm_lines
from lazygrad_compiler.loops.cost import cost_of
from lazygrad_compiler.loops.kernel import text
from lazygrad_compiler.pipeline import CompiledKernel, Stages, emit_kernel

LARGE_PICTURE = 1500
"""Operations; a graph with more is not drawn operation by operation beside its kernels."""


def html_text(programs: Sequence[DumpedProgram], title: str = "lazygrad dump-ir") -> str:
    """The whole page."""
    index = "".join(
        f'<li><a href="#p{program.number}">program {program.number:03}: {escape(program.about)}'
        f"</a> ({escape(program.summary)})</li>" for program in programs)
    body = "\n".join(map(_program, programs))
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(title)}</title><style>{STYLE}{PICTURE_STYLE}</style></head><body>\n"
            f"<h1>{escape(title)}</h1>\n<ul>{index}</ul>\n{body}\n"
            f"<script>\n{SCRIPT}</script></body></html>\n")


def _program(program: DumpedProgram) -> str:
    stages, number = program.stages, program.number
    parts = [f'<section id="p{number}"><h2>program {number:03}: {escape(program.about)}</h2>',
             f"<p>{escape(program.summary)}; "
             f"{_bytes(stages.plan.arena_bytes)} of memory between its kernels</p>",
             _figures(program),
             f'<div class="scroll">{_picture(program, "fused", f"#p{number}-")}</div>']
    if "graph" in program.texts and len(stages.graph.nodes()) <= LARGE_PICTURE:
        parts.append("<details><summary>the graph as recorded, as a picture</summary>"
                     f'<div class="scroll">{_picture(program, "graph", "")}</div></details>')
    parts += [_stage(stage, shown) for stage, shown in program.texts.items()]
    for change in program.changes:
        if change.changed:
            parts.append(f"<details><summary>{escape(change.heading().strip('# -'))}</summary>"
                         f"<pre>{_coloured(change.diff())}</pre></details>")
    shown_kernels = {stages.names[launch] for launch in program.kernels}
    parts += [_kernel(program, kernel) for kernel in stages.kernels if kernel.name in shown_kernels]
    return "\n".join([*parts, "</section>"])


def _picture(program: DumpedProgram, stage: str, link: str) -> str:
    return svg_of(picture_of(program.stages, stage, program.kernels), link, standalone=False)


def _stage(stage: str, shown: str) -> str:
    told = escape(" ".join(EXPLANATIONS[stage]))
    return (f"<details><summary>{stage}</summary><p>{told}</p>"
            f"<pre>{escape(shown.rstrip())}</pre></details>")


def _coloured(diff: str) -> str:
    kinds = {"+": "add", "-": "del", "@": "at"}
    return "".join(
        f'<span class="{kinds[line[0]]}">{escape(line)}</span>' if line[:1] in kinds
        else escape(line) for line in diff.splitlines(keepends=True))


def _figures(program: DumpedProgram) -> str:
    """The table of kernel calls."""
    stages = program.stages
    rows = []
    for number in program.kernels:
        launch = stages.launches[number]
        cost = cost_of(launch.kernel)
        name = stages.names[number]
        page = any(kernel.name == name for kernel in stages.kernels)
        about = escape(launch.about)
        if page:
            about = f'<a href="#p{program.number}-{name}">{about}</a>'
        rows.append(
            f'<tr><td class="n">{number}</td><td>{launch.kernel.kind}</td><td>{about}</td>'
            f'<td class="lines">{_lines(launch.location)}</td><td class="n">{cost.flops:,}</td>'
            f'<td class="n">{cost.read:,}</td><td class="n">{cost.written:,}</td>'
            f'<td class="n">{cost.intensity:.3g}</td></tr>')
    return ('<table><thead><tr><th class="n">kernel</th><th>kind</th><th>what</th><th>lines</th>'
            '<th class="n">flops</th><th class="n">bytes read</th><th class="n">bytes written</th>'
            '<th class="n">flops per byte</th></tr></thead><tbody>'
            + "\n".join(rows) + "</tbody></table>")


def _lines(location: Location) -> str:
    return escape(", ".join(f"{line['file']}:{line['line']}" for line in lines_of(location)))


def _bytes(count: int) -> str:
    from lazygrad.cli import human_bytes

    return human_bytes(count)


def _kernel(program: DumpedProgram, kernel: CompiledKernel) -> str:
    """A kernel's page."""
    stages = program.stages
    calls = [number for number in program.kernels if stages.names[number] == kernel.name]
    said = "".join(f"<li>kernel {number}: {escape(stages.launches[number].about)} "
                   f'<span class="lines">{_lines(stages.launches[number].location)}</span></li>'
                   for number in calls)
    cost = cost_of(kernel.kernel)
    loop, llvm, machine = linked(stages, kernel)
    columns = "".join(
        f"<div><h4>{title}</h4><pre>{_column(lines)}</pre></div>"
        for title, lines in (("loop IR", loop), ("LLVM", llvm), ("assembly", machine)))
    return (f'<h3 id="p{program.number}-{kernel.name}"><code>{kernel.name}</code></h3>'
            f"<ul>{said}</ul><p>{cost.flops:,} flops, {cost.read:,} bytes read, {cost.written:,} "
            f"written: {cost.intensity:.3g} flops per byte; {counted(kernel.tasks, 'task')}, "
            f"{kernel.grain:,} at a time</p>"
            f"<p><code>{escape(str(kernel.schedule))}</code></p>"
            f'<div class="columns">{columns}</div>')


def linked(stages: Stages, kernel: CompiledKernel
           ) -> tuple[list[LinkedLine], list[LinkedLine], list[LinkedLine]]:
    """A kernel's loop IR, LLVM and assembly, line by line, with what links them."""
    loop = [LinkedLine(line, 0, _loop_origin(line)) for line in text(kernel.kernel).splitlines()]
    annotated = emit_kernel(kernel.name, kernel.kernel, stages.target, annotated=True)
    llvm = llvm_lines(annotated.llvm)
    return loop, llvm, assembly_lines(llvm, stages.target, kernel.name)


def _loop_origin(line: str) -> str:
    found = re.match(r"\s*(%\d+) (?:\w*=)|\s*(b\d+)\[.*=|\s*(contraction) over", line)
    return "" if found is None else found[1] or found[2] or found[3]


def _column(lines: Iterable[LinkedLine]) -> str:
    parts = []
    for line in lines:
        data = f' data-o="{escape(line.origin)}"' if line.origin else ""
        data += f' data-l="{line.line}"' if line.line else ""
        parts.append(f'<span class="l"{data}>{escape(line.text)}</span>')
    return "".join(parts)
