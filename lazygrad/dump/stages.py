"""The stages' names and what is said about each; and one program as shown: its texts by stage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lazygrad.dump.changes import Change, changes_text
from lazygrad.dump.options import counted
from lazygrad_compiler.pipeline import Stages, input_count

EXPLANATIONS: dict[str, tuple[str, str]] = {
    "graph": (
        "The operations as recorded, in order: %name = operation(inputs) : type[sizes]  # line",
        "input(n) is a value that is already there; `return` names the values that are wanted.",
    ),
    "grad": (
        "The operations that backward() added: the chain rule, from the result back to the leaves.",
        "`forward` marks values of the forward pass; the lines are those of forward operations.",
    ),
    "opt": (
        "The same program simplified: what was repeated, useless or constant is gone.",
        "It computes the same values as `graph`; the names %0, %1, ... are given anew.",
    ),
    "fused": (
        "What runs together: a kernel is one pass over memory that does all its operations.",
        "`stored` values go to memory, `inside` ones do not; `not fused` says why there is a seam.",
    ),
    "loops": (
        "Each kernel as loops over its buffers b0, b1, ...; threads share a `parallel` loop.",
        "The schedule above it is how it is made fast: numbers per vector (lanes), tiles, tasks.",
    ),
    "llvm": (
        "Each kernel in LLVM's language as written by lazygrad: typed steps on named values.",
        "<16 x float> is 16 numbers that one instruction handles; `entry` starts the kernels.",
    ),
    "llvm-opt": (
        "The kernels after LLVM's clean-up: function calls merged in, duplicate steps removed.",
        "The language is the one of `llvm`; compare the two to see what LLVM made of it.",
    ),
    "asm": (
        "The processor's own instructions: this is what runs, one line an instruction.",
        "Vector registers are called xmm, ymm, zmm on x86 (16, 32, 64 bytes), v or q on ARM.",
    ),
    "ptx": (
        "What one of the GPU's threads does; its driver makes machine instructions of it.",
        "%tid and %ctaid tell threads apart: the number in the block, and the block's number.",
    ),
}
"""Two lines on each stage, for somebody who has never seen a compiler."""

_COMMENT = {"graph": "#", "grad": "#", "opt": "#", "fused": "#"}  # the graph texts parse back


def heading(stage: str) -> str:
    """The lines above a stage's text."""
    mark = _COMMENT.get(stage, ";")
    return "\n".join([f"{mark} ---- {stage} ----", *(f"{mark} {e}" for e in EXPLANATIONS[stage])])


@dataclass(frozen=True, slots=True)
class DumpedProgram:
    """A program as shown.  number: counted from 0.  about: its kernels, in a word.  texts: by
    stage.  stages: what they were made from.  kernels: numbers of the launches that are shown.
    """

    number: int
    about: str
    summary: str
    texts: dict[str, str]
    stages: Stages
    kernels: tuple[int, ...] = ()
    changes: tuple[Change, ...] = ()
    as_diffs: bool = field(default=True)

    @property
    def name(self) -> str:
        return f"{self.number:03}-{self.about}"

    def text(self) -> str:
        """All stages with their headings, as printed."""
        parts = [f"==== program {self.number:03}: {self.about} ({self.summary}) ===="]
        before = [name for name in self.texts if name in ("graph", "grad")]
        parts += [f"{heading(stage)}\n{self.texts[stage].rstrip()}" for stage in before]
        if self.changes:
            parts.append(changes_text(self.changes, self.as_diffs))
        parts += [f"{heading(stage)}\n{text.rstrip()}" for stage, text in self.texts.items()
                  if stage not in before]
        return "\n\n".join(parts) + "\n\n"


def about(stages: Stages) -> str:
    """What a program's kernels compute, short and fit for a file name."""
    words = dict.fromkeys(launch.about for launch in stages.launches)
    word = re.sub(r"[^A-Za-z0-9_+]+", "-", "-".join(words)).strip("-")
    return word[:40].rstrip("-+") or "nothing"


def summary(stages: Stages) -> str:
    return ", ".join([counted(input_count(stages.graph), "input"),
                      counted(len(stages.graph.outputs), "output"),
                      counted(len(stages.launches), "kernel call")])
