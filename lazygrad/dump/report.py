"""A dump as one HTML file: it needs no network, no other file and no program but a browser.

For each program a picture with its kernels as boxes, the figures of each kernel, and a view for
each: loop IR, LLVM and assembly side by side.  A click on a line marks those that belong to it in
the other two (`lazygrad_compiler.llvm.lines`).  The code is kept as data, once for all programs
that have the kernel, and becomes elements when its view is opened: a model's kernels have some
hundred thousand lines, most of which nobody looks at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape

from lazygrad.dump.options import counted
from lazygrad.dump.page import SCRIPT, STYLE
from lazygrad.dump.picture import Picture, kernel_picture, overview, picture_of
from lazygrad.dump.stages import EXPLANATIONS, DumpedProgram
from lazygrad.dump.svg import STYLE as PICTURE_STYLE
from lazygrad.dump.svg import svg_of
from lazygrad.explain.lines import place
from lazygrad_compiler.ir.node import Location
from lazygrad_compiler.llvm.lines import LinkedLine, assembly_lines, llvm_lines
from lazygrad_compiler.loops.cost import cost_of
from lazygrad_compiler.loops.kernel import text
from lazygrad_compiler.pipeline import CompiledKernel, Stages, emit_kernel, rounds, schedule_text

LARGE_PICTURE = 1500
"""Operations; a graph with more is not drawn operation by operation beside its kernels."""

LARGE_PROGRAM = 12
"""Kernels; of a program with more the kernels are shown as plain boxes first."""

ZOOM_STEPS = (("fit", "fit"), ("0.25", "25 %"), ("0.5", "50 %"), ("1", "100 %"))


def html_text(programs: Sequence[DumpedProgram], title: str = "lazygrad dump-ir") -> str:
    """The whole page."""
    links = "".join(map(_links, programs))
    views = "\n".join(map(_program, programs))
    targets = {kernel.name: (program.stages, kernel)
               for program in programs for kernel in _shown_kernels(program)}
    code = "\n".join(_code(stages, kernel) for stages, kernel in targets.values())
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(title)}</title><style>{STYLE}{PICTURE_STYLE}</style></head><body>\n"
            f'<nav><a href="#start">overview</a><ul></ul>{links}</nav>\n<main>\n'
            f'<section class="view" id="start"><h1>{escape(title)}</h1>{_overview(programs)}'
            f"</section>\n{views}\n</main>\n{code}\n<script>\n{SCRIPT}</script></body></html>\n")


def _links(program: DumpedProgram) -> str:
    """The program and its kernels in the bar on the left."""
    pages = {kernel.name for kernel in program.stages.kernels}
    calls = "".join(
        f'<li><a href="#p{program.number}-{name}" title="{about}">{number} {about}</a></li>'
        for number in program.kernels if (name := program.stages.names[number]) in pages
        for about in [escape(program.stages.launches[number].about)])
    return (f'<a href="#p{program.number}" title="{escape(program.about)}">program '
            f"{program.number:03}</a><ul>{calls}</ul>")


def _overview(programs: Sequence[DumpedProgram]) -> str:
    """The table of programs."""
    rows = []
    for program in programs:
        costs = [cost_of(program.stages.launches[number].kernel) for number in program.kernels]
        moved, flops = sum(cost.nbytes for cost in costs), sum(cost.flops for cost in costs)
        rows.append(
            f'<tr><td><a href="#p{program.number}">program {program.number:03}</a></td>'
            f"<td>{escape(program.about)}</td><td>{escape(program.summary)}</td>"
            f'<td class="n">{flops:,}</td><td class="n">{moved:,}</td>'
            f'<td class="n">{flops / moved if moved else 0:.3g}</td>'
            f'<td class="n">{_bytes(program.stages.plan.arena_bytes)}</td></tr>')
    return ('<p class="told">A program is what runs at once: a training step, say. Its kernels are '
            "passes over memory; each has a page with its code, from loops to instructions.</p>"
            '<table><thead><tr><th></th><th>computes</th><th></th><th class="n">flops</th>'
            '<th class="n">bytes moved</th><th class="n">flops per byte</th>'
            '<th class="n">between kernels</th></tr></thead><tbody>'
            + "\n".join(rows) + "</tbody></table>")


def _program(program: DumpedProgram) -> str:
    stages, number = program.stages, program.number
    parts = [f'<section class="view whole" id="p{number}">'
             f"<h2>program {number:03}: {escape(program.about)}</h2>",
             f"<p>{escape(program.summary)}; "
             f"{_bytes(stages.plan.arena_bytes)} of memory between its kernels</p>",
             _figures(program), *_kernels(program)]
    if "graph" in program.texts and len(stages.graph.nodes()) <= LARGE_PICTURE:
        parts.append("<details><summary>the graph as recorded, as a picture</summary>"
                     f'{_picture(picture_of(stages, "graph"), f"graph-{number}")}</details>')
    parts += [_stage(stage, shown) for stage, shown in program.texts.items()]
    for change in program.changes:
        if change.changed:
            parts.append(f"<details><summary>{escape(change.heading().strip('# -'))}</summary>"
                         f"<pre>{_coloured(change.diff())}</pre></details>")
    parts += [_kernel(program, kernel) for kernel in _shown_kernels(program)]
    return "\n".join([*parts, "</section>"])


def _shown_kernels(program: DumpedProgram) -> list[CompiledKernel]:
    shown = {program.stages.names[launch] for launch in program.kernels}
    return [kernel for kernel in program.stages.kernels if kernel.name in shown]


def _kernels(program: DumpedProgram) -> list[str]:
    """The picture of the kernels; of many, one with boxes alone comes before it."""
    number, link = program.number, f"#p{program.number}-"
    picture = picture_of(program.stages, "fused", program.kernels)
    whole = _picture(picture, f"fused-{number}", link)
    if len(picture.boxes) <= LARGE_PROGRAM:
        return [whole]
    small = overview(picture)
    folded = max(item.folded for item in small.items)
    alike = f" (×{folded}: {folded} with the same code)" if folded > 1 else ""
    return [_picture(small, f"overview-{number}", link),
            f'<p class="told">A box is a kernel{alike}; a click on it opens '
            "its page, with its operations.</p>",
            f"<details><summary>the kernels with their operations, as a picture</summary>{whole}"
            "</details>"]


def _picture(picture: Picture, name: str, link: str = "") -> str:
    drawn = svg_of(picture, link, standalone=False, name=f"tip-{name}")
    steps = "".join(f'<button class="zoom" type="button" data-zoom="{scale}">{said}</button>'
                    for scale, said in ZOOM_STEPS)
    return f'<div class="pictured">{steps}<div class="scroll">{drawn}</div></div>'


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
    costs = [cost_of(stages.launches[number].kernel) for number in program.kernels]
    most_flops = max((cost.flops for cost in costs), default=0)
    most_bytes = max((cost.nbytes for cost in costs), default=0)
    for number in program.kernels:
        launch = stages.launches[number]
        cost = cost_of(launch.kernel)
        name = stages.names[number]
        page = any(kernel.name == name for kernel in stages.kernels)
        about = escape(launch.about)
        loops = escape(rounds(launch))
        if page:
            about = f'<a href="#p{program.number}-{name}">{about}</a>'
        rows.append(
            f'<tr><td class="n">{number}</td><td>{launch.kernel.kind}</td><td>{about}{loops}</td>'
            f'<td class="lines">{_lines(launch.location)}</td>{_bar(cost.flops, most_flops)}'
            f'{_bar(cost.read, most_bytes)}{_bar(cost.written, most_bytes)}'
            f'<td class="n">{cost.intensity:.3g}</td></tr>')
    return ('<table><thead><tr><th class="n">kernel</th><th>kind</th><th>what</th><th>lines</th>'
            '<th class="n">flops</th><th class="n">bytes read</th><th class="n">bytes written</th>'
            '<th class="n">flops per byte</th></tr></thead><tbody>'
            + "\n".join(rows) + "</tbody></table>")


def _bar(count: int, most: int) -> str:
    """A number in a table, with its share of the largest as a bar behind it."""
    return f'<td class="n bar" style="--share:{count / most if most else 0:.1%}">{count:,}</td>'


def _lines(location: Location) -> str:
    return escape(place(location))


def _bytes(count: int) -> str:
    from lazygrad.cli import human_bytes

    return human_bytes(count)


def _kernel(program: DumpedProgram, kernel: CompiledKernel) -> str:
    """A kernel's page."""
    stages = program.stages
    calls = [number for number in program.kernels if stages.names[number] == kernel.name]
    said = "".join(f"<li>kernel {number}: {escape(stages.launches[number].about)}"
                   f"{escape(rounds(stages.launches[number]))} "
                   f'<span class="lines">{_lines(stages.launches[number].location)}</span></li>'
                   for number in calls)
    cost = cost_of(kernel.kernel)
    each = " in each step" if any(stages.launches[number].repeats for number in calls) else ""
    inside = _picture(kernel_picture(stages, (calls[0],)), f"{kernel.name}-{program.number}")
    return (f'<section class="view" id="p{program.number}-{kernel.name}">'
            f'<h3><a href="#p{program.number}">program {program.number:03}</a>: '
            f"{kernel.kernel.kind} kernel <code>{kernel.name}</code></h3>"
            f"<ul>{said}</ul><p>{cost.flops:,} flops, {cost.read:,} bytes read, {cost.written:,} "
            f"written{each}: {cost.intensity:.3g} flops per byte; {counted(kernel.tasks, 'task')}, "
            f"{kernel.grain:,} at a time</p>"
            f"<p><code>{escape(schedule_text(kernel.schedule))}</code>"
            f"{f' ({kernel.tuned})' if kernel.tuned else ''}</p>"
            f"<details><summary>its operations, as a picture</summary>{inside}</details>"
            '<p class="told">Click on a line to see what became of it, or where it comes from.</p>'
            f'<div class="columns" data-code="{kernel.name}"></div></section>')


def _code(stages: Stages, kernel: CompiledKernel) -> str:
    """A kernel's three columns as data: titles and lines, a line that is linked with the number of
    its LLVM line and what it belongs to.
    """
    last = "PTX" if stages.target.kind == "cuda" else "assembly"
    columns = [
        (title, [[line.text, line.line, line.origin] if line.line or line.origin else line.text
                 for line in lines])
        for title, lines in zip(("loop IR", "LLVM", last), linked(stages, kernel), strict=True)]
    data = json.dumps(columns, separators=(",", ":"), ensure_ascii=False)
    data = data.replace("</", "<\\/").replace("<!--", "<\\u0021--")  # nothing ends the script
    return f'<script type="application/json" id="code-{kernel.name}">{data}</script>'


def linked(stages: Stages, kernel: CompiledKernel
           ) -> tuple[list[LinkedLine], list[LinkedLine], list[LinkedLine]]:
    """A kernel's loop IR, LLVM and assembly, line by line, with what links them."""
    loop = [LinkedLine(line, 0, _loop_origin(line)) for line in text(kernel.kernel).splitlines()]
    annotated = emit_kernel(kernel.name, kernel.kernel, stages.target, annotated=True,
                            tuned=kernel.tuned)
    llvm = llvm_lines(annotated.llvm)
    return loop, llvm, assembly_lines(llvm, stages.target)


def _loop_origin(line: str) -> str:
    found = re.match(r"\s*(%\d+) (?:\w*=)|\s*(b\d+)\[.*=|\s*(contraction) over", line)
    return "" if found is None else found[1] or found[2] or found[3]
