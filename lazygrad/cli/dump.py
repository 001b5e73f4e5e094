"""`lazygrad dump-ir`: runs a script and shows every program that it gets compiled, stage by stage.

The script runs as `python SCRIPT ARGS` would run it.  With the dump on standard output, what the
script prints goes to standard error, so that the dump can be piped, compared and kept.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING

from lazygrad.cli import FINDING, OK, ReaderGone, UsageError
from lazygrad.cli.running import run_script, why_no_program
from lazygrad.cli.scripts import check_folder, check_script
from lazygrad.dump.options import (
    OptionError,
    UnknownStage,
    add_options,
    counted,
    from_namespace,
)

if TYPE_CHECKING:
    from lazygrad.dump.listen import Dump
    from lazygrad.dump.stages import DumpedProgram

LONG = 500
"""Lines; below a longer dump it is said how to see less of it."""

DESCRIPTION = """\
Runs SCRIPT and shows each program that is compiled for it (or taken from the cache), as text, stage
by stage: from the operations that the script recorded down to the processor's instructions.

  graph      the operations as recorded
  grad       those of them that backward() added
  opt        the same, simplified
  fused      which operations run together as one kernel, and why others do not
  loops      the kernels as loops over memory
  llvm       the kernels in LLVM's language
  llvm-opt   the same after LLVM's clean-up
  asm        machine instructions
  ptx        in its place for a GPU (--target cuda:sm_90a): what its driver assembles
"""

EPILOG = """\
Everything else on the command line goes to the script; after `--`, also --stage and -o do.
Examples:
  lazygrad dump-ir train.py --epochs 1 --stage fused
  lazygrad dump-ir --stage all -o dump train.py -- -o model.pt
  lazygrad dump-ir train.py --at train.py:12 --stage all
  lazygrad dump-ir train.py --print-changed=diff
  lazygrad dump-ir train.py --format html -o report
  lazygrad dump-ir train.py --target cuda:sm_90a --stage ptx
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "dump-ir", help="run a script and show its compiled programs, stage by stage",
        usage="lazygrad dump-ir SCRIPT [ARGS ...] [--stage STAGES] [--print-changed[=diff]]\n"
              "       [--filter RE] [--at FILE:LINE] [--format text|json|dot|svg|html] [-o DIR|-]\n"
              "       [--target cuda:ARCH]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", metavar="SCRIPT", help="a Python file")
    add_options(parser)
    parser.set_defaults(run=run, takes_script_arguments=True)


def run(options: argparse.Namespace) -> int:
    """Runs the script under a dump; `options.script_arguments` are its own."""
    from lazygrad.dump.listen import Dump
    from lazygrad.dump.write import finished, writer
    from lazygrad_runtime.program import forget_programs
    try:
        wanted = from_namespace(options)
    except UnknownStage as error:
        raise UsageError(f"--stage: {error}") from None
    except OptionError as error:
        raise UsageError(str(error)) from None
    check_script(options.script)
    to_stdout = options.output == "-"
    if not to_stdout:
        check_folder(options.output)
    try:
        write = writer(wanted, sys.stdout)
    except OSError as error:
        raise UsageError(f"-o {options.output}: {error.strerror}") from None
    forget_programs()  # those of an earlier run in this process are to be shown, too

    length = 0
    lines: Counter[tuple[str, int]] = Counter()

    def show(program: DumpedProgram) -> None:
        nonlocal length
        length += sum(text.count("\n") for text in program.texts.values())
        lines.update(line for number in program.kernels
                     for line in program.stages.launches[number].location)
        write(program)
        if write.gone:
            raise ReaderGone

    dump = Dump(wanted, show).install()
    try:
        with contextlib.redirect_stdout(sys.stderr) if to_stdout else contextlib.nullcontext():
            succeeded = run_script(options.script, options.script_arguments)
    finally:
        dump.remove()
        whole = finished(write, "lazygrad dump-ir")
    if write.gone:
        raise ReaderGone
    report(dump, None if to_stdout or not whole else options.output, succeeded)
    if to_stdout and wanted.format == "text" and length > LONG and lines and not wanted.selection:
        (file, line), _ = lines.most_common(1)[0]
        print(f"{length} lines; less of it: --at {os.path.basename(file)}:{line} is what came from "
              "one line; as pages with pictures: --format html -o report", file=sys.stderr)
    return OK if succeeded and whole and not dump.failures else FINDING


def report(dump: Dump, folder: str | None, succeeded: bool) -> None:
    """One line on standard error: how many programs there were; another where a selection found
    nothing, on what there is.
    """
    if dump.count == 0:
        line = why_no_program(succeeded)
    else:
        line = f"{counted(dump.count, 'program')}, {dump.from_disk} from the compile cache"
        if dump.shown != dump.count:
            line += f", {dump.shown} shown (--filter, --at)"
        if folder is not None:
            line += f"; written to {folder}"
    print(f"lazygrad dump-ir: {line}", file=sys.stderr)
    if dump.count and not dump.shown:
        from lazygrad.explain.lines import place
        print(f"nothing is like that; there are operations from {place(tuple(sorted(dump.lines)))}",
              file=sys.stderr)
