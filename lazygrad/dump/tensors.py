"""The program of one tensor, or of a function call, without running it: `lazygrad.dump_ir`."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

from lazygrad._core import cell as cells
from lazygrad._core import graph as build_graph
from lazygrad._core.context import fail
from lazygrad._core.tensor import Tensor, raw_node
from lazygrad.dump.listen import BackwardRecorder, dumped
from lazygrad.dump.options import DEFAULT_STAGES, Options, find_target, make_options
from lazygrad.dump.report import html_text
from lazygrad.dump.stages import DumpedProgram
from lazygrad.dump.write import as_text
from lazygrad_compiler.autodiff import backward as autodiff
from lazygrad_compiler.autodiff.listing import Differentiated
from lazygrad_compiler.ir.node import Graph, Node, topological
from lazygrad_compiler.pipeline import lower
from lazygrad_runtime import program


class DumpText(str):
    """A dump: its text, which a notebook shows as the report with pictures and linked lines.

    programs: what it shows.
    """

    programs: tuple[DumpedProgram, ...]

    def __new__(cls, text: str, programs: Iterable[DumpedProgram] = ()) -> DumpText:
        made = super().__new__(cls, text)
        made.programs = tuple(programs)
        return made

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        page = escape(html_text(self.programs), quote=True)
        return (f'<iframe srcdoc="{page}" style="width:100%;height:720px;border:1px solid #ccc" '
                'sandbox="allow-scripts"></iframe>')


def recorded_graph(tensors: Sequence[Tensor]) -> tuple[Graph, list[Node]]:
    """The pending graph of tensors, canonical, and its leaves: the nodes whose values it takes."""
    return program.pending_graph(_value_nodes(tensors))


def _value_nodes(tensors: Sequence[Tensor]) -> list[Node]:
    """What a flush would compute for the tensors: without the mark of a history that was used."""
    nodes = [raw_node(tensor) for tensor in tensors]
    return [node.inputs[0] if cells.is_freed(node) else node for node in nodes]


def dump_ir(what: Any, *arguments: Any, stage: str | Iterable[str] = DEFAULT_STAGES,
            format: str = "text", at: str | None = None, print_changed: str = "",
            target: str = "", **keywords: Any) -> DumpText:
    """The program that would compute a tensor, as text; it is compiled as far as asked, not run.

    what: a pending tensor, a list of them, or a function, which is called with the further
    arguments; its program is everything pending that the call recorded (results, gradients, updated
    parameters), and what it looks at while it is called is computed.  stage: one name or several
    (see `lazygrad_compiler.pipeline.STAGES`), or "all".  Stage grad of a tensor is what
    `.backward()` would record.  format: "text", "json", "dot", "svg" or "html".  at: "FILE:LINE",
    to show only what came from that line.  print_changed: "diff" or "text", to show what the passes
    did.  target: another machine to compile for, as "cuda:sm_90a".  A notebook shows the result as
    a report with pictures.

    Raises UnknownStage (or OptionError) for a word that does not exist, and ValueError where there
    is nothing pending.
    """
    options = make_options(stage, print_changed, None, at, format, target=target)
    if isinstance(what, Tensor) or not callable(what):
        outputs = _value_nodes(_tensors_in(what))
        calls = [call for node in outputs if "grad" in options.stages
                 and (call := _would_differentiate(node))]
    else:
        outputs, calls = _record(inspect.unwrap(what), arguments, keywords)
    pending = list(dict.fromkeys(node for node in outputs if node.payload is None))
    if not pending:
        raise fail("dump_ir", "nothing is pending: the values are there already, and the program "
                   "that made them is gone", "Call dump_ir before anything looks at the tensor "
                   "(print, .item(), .numpy()), or use `lazygrad dump-ir SCRIPT`.")
    return dump_nodes(pending, calls, options)


def dump_nodes(pending: Sequence[Node], calls: Sequence[Differentiated],
               options: Options) -> DumpText:
    """The dump of the program for pending nodes."""
    stages = lower(program.pending_graph(pending)[0], find_target(options.target))
    stages.gradients = tuple(calls)
    found = dumped(stages, options)
    shown = [] if found is None else [found]
    return DumpText(as_text(shown, options.format), shown)


def _tensors_in(value: Any) -> list[Tensor]:
    """The tensors of nested lists, tuples and dicts, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return list(itertools.chain.from_iterable(map(_tensors_in, value)))


def _is_known(node: Node) -> bool:
    return node.payload is not None


def _would_differentiate(output: Node) -> Differentiated | None:
    """What `.backward()` on the node would record, for all leaves that require gradients."""
    if not output.differentiable:
        return None
    leaves = [node for node in topological([output], stop=_is_known)
              if node.op == "variable" and not cells.is_freed(node)]
    if not leaves:
        return None
    found = autodiff.backward([output], [build_graph.like(1, output)], leaves)
    return Differentiated((output,), tuple(node for node in found if node is not None))


def _record(function: Callable[..., Any], arguments: tuple[Any, ...],
            keywords: dict[str, Any]) -> tuple[list[Node], list[Differentiated]]:
    """The nodes that a call of the function left pending, and what it differentiated."""
    before = {cell.node for cell in cells.live_cells()}
    recorder = BackwardRecorder()
    recorder.install()
    try:
        results = _tensors_in(function(*arguments, **keywords))
    finally:
        recorder.remove()
    recorded = [cell.node for cell in cells.live_cells() if cell.node not in before]
    recorded = [node.inputs[0] if cells.is_freed(node) else node for node in recorded]
    return _value_nodes(results) + recorded, recorder.calls
