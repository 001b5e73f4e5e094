"""Which line of the loop IR, of the LLVM text and of the assembly belong together.

An annotated module (`builder.Module.annotated`) says in comments which value or store of the loop
IR the next instructions are for.  Here the comments become a table, and the LLVM text gets debug
locations, so that LLVM itself carries the numbers of its lines through the passes into the
assembly, as `.loc` directives.  Functions that are inlined get none: their instructions then bear
the line of the call.  Taking the comments and directives away gives the texts of the stages again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lazygrad_compiler.backend import AnyTarget, backend_of
from lazygrad_compiler.llvm.builder import ORIGIN


@dataclass(frozen=True, slots=True)
class LinkedLine:
    """text: as in the stage.  line: of the LLVM text that it came from, from 1; 0 for none.
    origin: the value ("%3") or buffer stored to ("b2") of the loop IR; "" for none.
    """

    text: str
    line: int = 0
    origin: str = ""


COMMENT = "  ; " + ORIGIN


def llvm_lines(annotated: str) -> list[LinkedLine]:
    """The lines of an annotated module, without the annotations."""
    lines: list[LinkedLine] = []
    origin = ""
    for text in annotated.splitlines():
        if text.startswith(COMMENT):
            origin = text.removeprefix(COMMENT).strip()
            continue
        if not text.startswith("  "):  # a label or the end of a function: something else begins
            origin = ""
        structural = " = phi " in text or text.startswith("  br ")
        lines.append(LinkedLine(text, len(lines) + 1, "" if structural else origin))
    return lines


def assembly_lines(llvm: Sequence[LinkedLine], target: AnyTarget) -> list[LinkedLine]:
    """The assembly of the module, each instruction with the LLVM line that it is for.

    Links are left out where debug locations changed the code, which they should not.
    """
    plain = [line.text for line in llvm]
    backend = backend_of(target)
    located = backend.assemble(backend.optimize(_located(plain), target), target)
    optimized = backend.optimize("\n".join(plain) + "\n", target)
    wanted = backend.assemble(optimized, target).splitlines()
    found: list[tuple[str, int]] = []
    current, skipped = 0, False
    for text in located.splitlines():
        directive = re.match(r"\s*\.loc\s+\d+\s+(\d+)", text)
        if re.match(r"\s*\.section\b", text):
            skipped = ".debug_" in text
        if directive:
            current = int(directive[1])
        elif not skipped and not NOT_CODE.match(text):
            instruction = text.startswith("\t") and not text.startswith("\t.")
            found.append((_bare(text), current if instruction else 0))
    if [text for text, _ in found] != [_bare(t) for t in wanted if not NOT_CODE.match(t)]:
        return [LinkedLine(text) for text in wanted]
    numbers = (line for _, line in found)
    lines = (0 if NOT_CODE.match(text) else next(numbers) for text in wanted)
    return [LinkedLine(text, line, llvm[line - 1].origin if line else "")
            for text, line in zip(wanted, lines, strict=True)]


NOT_CODE = re.compile(r"\s*(\.file\b|\.cfi_|\.L(tmp|func_begin|func_end)\d+:|#|;|//|$)")
"""Lines of assembly that differ with debug locations, or say nothing."""


def _bare(text: str) -> str:
    """Without the assembler's comment, whose place in the line varies."""
    return re.split(r"\s(?:#|//|;)", text)[0].rstrip()


def _located(lines: Sequence[str]) -> str:
    """The module with a debug location on each instruction of the functions that stay functions."""
    out: list[str] = []
    numbered = itertools.count(1 + max((int(number) for text in lines
                                        for number in re.findall(r"^!(\d+) = ", text)), default=-1))
    version, unit, file, types = (f"!{next(numbered)}" for _ in range(4))
    metadata = [
        f'{version} = !{{i32 2, !"Debug Info Version", i32 3}}',
        f"{unit} = distinct !DICompileUnit(language: DW_LANG_C99, file: {file}, "
        "emissionKind: DebugDirectivesOnly)",
        f'{file} = !DIFile(filename: "kernel.ll", directory: "")',
        f"{types} = !DISubroutineType(types: !{{}})",
    ]
    function = ""
    for number, text in enumerate(lines, 1):
        if text.startswith("define ") and "alwaysinline" not in text:
            function = f"!{next(numbered)}"
            name = text[text.index("@") + 1 : text.index("(")]
            metadata.append(
                f'{function} = distinct !DISubprogram(name: "{name}", file: {file}, '
                f"line: {number}, type: {types}, unit: {unit}, spFlags: DISPFlagDefinition)")
            text = text.removesuffix("{") + f"!dbg {function} {{"
        elif text == "}":
            function = ""
        elif function and text.startswith("  ") and not text.lstrip().startswith(";"):
            location = f"!{next(numbered)}"
            text += f", !dbg {location}"
            metadata.append(
                f"{location} = !DILocation(line: {number}, column: 1, scope: {function})")
        out.append(text)
    return "\n".join([*out, f"!llvm.module.flags = !{{{version}}}",
                      f"!llvm.dbg.cu = !{{{unit}}}", *metadata, ""])
