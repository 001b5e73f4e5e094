"""The words of a dump: those of `lazygrad dump-ir`, of LAZYGRAD_DUMP and of `dump_ir`, read once.

    --stage graph,fused --print-changed=diff --filter softmax --at train.py:12 --format html -o DIR
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from lazygrad_compiler.ir.node import Location

if TYPE_CHECKING:
    from lazygrad_compiler.backend import AnyTarget

DEFAULT_STAGES = ("graph", "fused", "loops")
FORMATS = ("text", "json", "dot", "svg", "html")
PICTURED = ("graph", "opt", "fused")
"""Stages that there are pictures of (formats dot and svg)."""


class OptionError(ValueError):
    """An option of a dump has a value that does not exist; the message says what does."""


class UnknownStage(OptionError):
    """A stage that does not exist was asked for."""


def find_target(name: str) -> AnyTarget:
    """The target of that name, "" for this machine, "cuda" for its device; with tf32 where that is
    switched on.  Raises OptionError with those there are.
    """
    from lazygrad_compiler.cuda_target import UnknownArchitecture, cuda_target
    from lazygrad_runtime.cuda.errors import NoDevice
    from lazygrad_runtime.placed import target_of
    from lazygrad_runtime.precision import precision

    if name in ("", "cpu", "cuda"):
        try:
            return target_of(name or "cpu")
        except NoDevice as error:
            raise OptionError(f"--target: {error}") from None
    try:
        return dataclasses.replace(cuda_target(name), tf32=precision.tf32)
    except UnknownArchitecture as error:
        raise OptionError(f"--target: {error}") from None


def parse_stages(text: str | Iterable[str], target: str = "") -> tuple[str, ...]:
    """Stage names, comma between, or "all", as a tuple in the order of the target's pipeline.

    Raises UnknownStage with the list of stages.
    """
    from lazygrad_compiler.pipeline import stages_of  # here: other commands need no compiler

    stages = stages_of(find_target(target))
    names = text.split(",") if isinstance(text, str) else list(text)
    wanted = {name.strip() for name in names if name.strip()}
    unknown = sorted(wanted - set(stages) - {"all"})
    if unknown or not wanted:
        problem = f"there is no stage {unknown[0]!r}" if unknown else "no stage is named"
        raise UnknownStage(f"{problem}; the stages are {', '.join(stages)}, or all")
    return stages if "all" in wanted else tuple(name for name in stages if name in wanted)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which operations and kernels are shown: those whose text matches and that came from a line.

    at: the end of a file's path, and the line; None for any.
    """

    pattern: re.Pattern[str] | None = None
    at: tuple[str, int] | None = None

    def __bool__(self) -> bool:
        return self.pattern is not None or self.at is not None

    def takes(self, text: str, location: Location) -> bool:
        if self.pattern is not None and not self.pattern.search(text):
            return False
        return self.at is None or any(
            line == self.at[1] and f"/{file}".replace("\\", "/").endswith(f"/{self.at[0]}")
            for file, line in location)


@dataclass(frozen=True, slots=True)
class Options:
    """changed: "" for no passes, "text" for the graph after each that changed it, "diff" for what
    it changed.  output: a folder, or "-" for a stream.  target: what programs are compiled for to
    be shown ("cuda:sm_90a"), "" for this machine.
    """

    stages: tuple[str, ...] = DEFAULT_STAGES
    changed: str = ""
    selection: Selection = Selection()
    format: str = "text"
    output: str = "-"
    target: str = ""


def make_options(stage: str | Iterable[str] | None = None, changed: str = "",
                 pattern: str | None = None, at: str | None = None, format: str = "text",
                 output: str = "-", target: str = "") -> Options:
    """Checked options.  Raises OptionError naming the word that is wrong and what is right."""
    if format not in FORMATS:
        raise OptionError(f"--format: there is no format {format!r}; "
                          f"the formats are {', '.join(FORMATS)}")
    if changed not in ("", "text", "diff"):
        raise OptionError(f"--print-changed: {changed!r} is not known; "
                          "write --print-changed, or --print-changed=diff")
    find_target(target)
    if stage is not None:
        stages = parse_stages(stage, target)
    elif changed and format in ("text", "json"):
        stages = ()
    else:
        stages = DEFAULT_STAGES
    if format in ("dot", "svg") and not set(stages) & set(PICTURED):
        raise OptionError(f"--format {format}: there is no picture of stage {', '.join(stages)}; "
                          f"there is of {', '.join(PICTURED)}")
    return Options(stages, changed, make_selection(pattern, at), format, output, target)


def make_selection(pattern: str | None, at: str | None) -> Selection:
    try:
        compiled = None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise OptionError(f"--filter: {pattern!r} is no regular expression: {error}") from None
    if at is None:
        return Selection(compiled)
    file, colon, line = at.rpartition(":")
    if not (colon and file and line.isdigit()):
        raise OptionError(f"--at: {at!r} is not FILE:LINE, as train.py:12 is")
    return Selection(compiled, (file.replace("\\", "/").removeprefix("./"), int(line)))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a dump, for a command line."""
    parser.add_argument("--stage", metavar="STAGES",
                        help="stages, comma between, or all (default: graph,fused,loops; "
                        "none with --print-changed)")
    # two options: an optional value would take the script's name for itself
    parser.add_argument("--print-changed", action="store_const", const="text", default="",
                        help="the graph after each pass that changed it")
    parser.add_argument("--print-changed=diff", action="store_const", const="diff",
                        dest="print_changed", help="what each pass changed, as a unified diff")
    parser.add_argument("--target", metavar="TARGET", default="",
                        help="compile for another machine, as cuda:sm_90a, whether it is there or "
                        "not; the script runs on this one")
    parser.add_argument("--filter", metavar="RE",
                        help="only operations and kernels whose text matches")
    parser.add_argument("--at", metavar="FILE:LINE", help="only what came from that line")
    parser.add_argument("--format", metavar="FORMAT", default="text",
                        help="text (default), json, dot, svg, or html")
    parser.add_argument("-o", "--output", metavar="DIR|-", default="-",
                        help="write files into DIR; - is standard output (default)")


def from_namespace(parsed: argparse.Namespace) -> Options:
    return make_options(parsed.stage, parsed.print_changed, parsed.filter, parsed.at,
                        parsed.format, parsed.output, parsed.target)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(message)


def parse_words(text: str) -> Options:
    """The words of LAZYGRAD_DUMP: stages, then options as on the command line; or options alone."""
    parser = _Parser(prog="LAZYGRAD_DUMP", add_help=False, allow_abbrev=False)
    add_options(parser)
    parser.add_argument("stages", nargs="?")
    try:
        parsed = parser.parse_args(shlex.split(text))
    except ValueError as error:
        raise error if isinstance(error, OptionError) else OptionError(str(error)) from None
    parsed.stage = parsed.stage if parsed.stages is None else parsed.stages
    return from_namespace(parsed)


def counted(count: int, noun: str) -> str:
    """3 kernels, 1 kernel."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
