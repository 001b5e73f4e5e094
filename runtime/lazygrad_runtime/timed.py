"""A program that measures itself: its entry reads the clock between launches.

In: a compiled program's stages and artifact.  Out: a `TimedProgram` that computes the same with the
same kernels; after a run it knows when each launch began and ended.  Ordinary programs are not
touched: the variant has an entry of its own, and costs some tens of nanoseconds a launch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lazygrad_compiler.artifact import Artifact
from lazygrad_compiler.binding import in_order
from lazygrad_compiler.llvm.builder import Module
from lazygrad_compiler.llvm.compile import compile_text
from lazygrad_compiler.llvm.entry import CLOCK_WORDS, emit_entry
from lazygrad_compiler.pipeline import Stages, bind, input_count
from lazygrad_compiler.target import Target
from lazygrad_runtime.memory import Buffer
from lazygrad_runtime.program import Program


def timed_entry(stages: Stages) -> bytes:
    """Object code of the entry that reads the clock."""
    assert isinstance(stages.target, Target)
    count = input_count(stages.graph)
    _, bound = bind(stages.opt, count, stages.launches, stages.kernels, stages.names)
    module = Module()
    error_slot = count + len(stages.opt.outputs) + 1
    emit_entry(module, bound, error_slot, "nounwind", clock_slot=error_slot + 1)
    return compile_text(module.text(), stages.target, straight=True).object_code


class TimedProgram(Program):
    """See the module.  `times`: of the last run, in seconds of `time.monotonic`: its beginning,
    then the end of each launch, those of a loop once for each round.
    """

    def __init__(self, stages: Stages, artifact: Artifact) -> None:
        objects = {**artifact.objects, "program": timed_entry(stages)}
        super().__init__(replace(artifact, objects=objects))
        words = CLOCK_WORDS * (sum(1 for _ in in_order(stages.bound)) + 1)
        self._clock = (ctypes.c_int64 * words)()
        table = (ctypes.c_void_p * (len(self._table) + 1))()
        table[len(self._table) - 1] = ctypes.addressof(self._error)
        table[len(self._table)] = ctypes.addressof(self._clock)
        self._table = table
        self._table_address = ctypes.addressof(table)
        self.times: list[float] = []

    def run(
        self, inputs: Sequence[Buffer], donated: Mapping[int, Buffer] | None = None
    ) -> list[Buffer]:
        outputs = super().run(inputs, donated)
        clock = self._clock
        self.times = [clock[place] + clock[place + 1] / 1e9
                      for place in range(0, len(clock), CLOCK_WORDS)]
        return outputs
