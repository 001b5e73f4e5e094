"""`lazygrad dump-ir`: runs a script and shows every program that it gets compiled, stage by stage.

The script runs as `python SCRIPT ARGS` would run it.  With the dump on standard output, what the
script prints goes to standard error, so that the dump can be piped, compared and kept.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import runpy
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from lazygrad.cli import FINDING, OK, UsageError

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
"""

EPILOG = """\
Everything else on the command line goes to the script; after `--`, also --stage and -o do:
  lazygrad dump-ir train.py --epochs 1 --stage fused
  lazygrad dump-ir --stage all -o dump train.py -- -o model.pt
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "dump-ir", help="run a script and show its compiled programs, stage by stage",
        usage="lazygrad dump-ir SCRIPT [ARGS ...] [--stage STAGES] [-o DIR|-]",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", metavar="SCRIPT", help="a Python file")
    parser.add_argument("--stage", metavar="STAGES", default="graph,fused,loops",
                        help="stages, comma between, or all (default: graph,fused,loops)")
    parser.add_argument("-o", "--output", metavar="DIR|-", default="-",
                        help="write DIR/000-<about>/<stage>.txt; - is standard output (default)")
    parser.set_defaults(run=run, takes_script_arguments=True)


def run(options: argparse.Namespace) -> int:
    """Runs the script under a dump; `options.script_arguments` are its own."""
    from lazygrad import debug
    from lazygrad_runtime.program import forget_programs
    try:
        stages = debug.parse_stages(options.stage)
    except debug.UnknownStage as error:
        raise UsageError(f"--stage: {error}") from None
    script = Path(options.script)
    if not script.is_file():
        raise UsageError(f"{script}: there is no such file")
    to_stdout = options.output == "-"
    if to_stdout:
        write = debug.write_to(sys.stdout)
    else:
        try:
            write = debug.write_files(Path(options.output))
        except OSError as error:
            raise UsageError(f"-o {options.output}: {error.strerror}") from None
    forget_programs()  # those of an earlier run in this process are to be shown, too
    dump = debug.Dump(stages, write).install()
    try:
        with contextlib.redirect_stdout(sys.stderr) if to_stdout else contextlib.nullcontext():
            succeeded = run_script(str(script), options.script_arguments)
    finally:
        dump.remove()
    report(dump.count, dump.from_disk, None if to_stdout else options.output)
    return OK if succeeded and not dump.failures else FINDING


def report(count: int, from_disk: int, folder: str | None) -> None:
    """One line on standard error: how many programs there were."""
    if count == 0:
        line = ("no program was compiled: the script never looked at a value "
                "(print, .item(), .numpy(), optimizer.step())")
    else:
        line = f"{count} program{'s' * (count != 1)}, {from_disk} from the compile cache"
        if folder is not None:
            line += f"; written to {folder}"
    print(f"lazygrad dump-ir: {line}", file=sys.stderr)


def run_script(script: str, arguments: list[str]) -> bool:
    """Runs a file as `__main__`.  False where it raised (the traceback is shown) or failed."""
    path = os.path.abspath(script)  # as Python does it, so that cache and errors name it alike
    with _as_main(script, arguments):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            return end.code is None or end.code == 0
        except BaseException as error:
            traceback.print_exception(type(error), error, _own_part(error.__traceback__, path))
            return False
    return True


@contextlib.contextmanager
def _as_main(script: str, arguments: list[str]) -> Iterator[None]:
    """sys.argv and sys.path as the script would find them."""
    before = sys.argv, sys.path
    sys.argv = [script, *arguments]
    sys.path = [os.path.dirname(os.path.abspath(script)), *sys.path]
    try:
        yield
    finally:
        sys.argv, sys.path = before


def _own_part(trace: TracebackType | None, path: str) -> TracebackType | None:
    """The traceback from the script's own frame on, without those that ran it."""
    current = trace
    while current is not None:
        if current.tb_frame.f_code.co_filename == path:
            return current
        current = current.tb_next
    return None  # a syntax error: the script has no frame
