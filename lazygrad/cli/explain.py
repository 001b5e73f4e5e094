"""`lazygrad explain`: why kernels are not one, why programs were compiled again, whose memory it
is, by which schedules kernels run.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from lazygrad.cli import FINDING, OK, SCHEMA_VERSION, UsageError
from lazygrad.cli.cache import print_json
from lazygrad.cli.scripts import (
    add_script,
    check_writable,
    no_program,
    run_watched,
    write_text,
)
from lazygrad.dump.options import counted

if TYPE_CHECKING:
    from lazygrad.explain.recompile import Recompile
    from lazygrad.explain.watch import Seen, Watch

DESCRIPTION = """\
Runs SCRIPT and explains the programs that were compiled for it (or taken from the cache).

  fusion     each pair of neighbouring values that are not in one kernel: the reason, the lines of
             both, and the bytes of memory traffic that fusing them would save; and each value
             that is computed twice, from what, and the bytes that it saves
  recompile  each program that is like an earlier one but not the same, and each function of
             lg.compile that was recorded anew: the field that changed, and the line
  memory     what each program holds while it runs, kernel by kernel: the peak, and the lines whose
             values it is made of; --svg FILE draws the largest program
  schedule   by which schedule each kernel runs; whether `lazygrad tune` chose it, and why what it
             found is not used; on a GPU by which template, and why

With --target cuda:ARCH (not for `recompile`) the script runs here, and what is explained is code
for that GPU, which need not be there.

Exit code: 0; 1 where the script failed, where `recompile` found one, or where `fusion` met a pair
without a reason.
"""

EPILOG = """\
Examples:
  lazygrad explain fusion train.py --epochs 1
  lazygrad explain memory train.py --svg memory.svg
  lazygrad explain schedule train.py --target cuda:sm_90a
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "explain", help="say why things are not fused, compiled again, or in memory",
        description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", metavar="fusion|recompile|memory|schedule",
                                    required=True)
    for name, action, help_text in (
        ("fusion", explain_fusion, "why neighbouring values are not in one kernel"),
        ("recompile", explain_recompile, "what changed where a program was compiled again"),
        ("memory", explain_memory, "the peak of each program and the lines that own it"),
        ("schedule", explain_schedule, "by which schedules kernels run, and who chose them"),
    ):
        sub = actions.add_parser(name, help=help_text, allow_abbrev=False,
                                 usage=f"lazygrad explain {name} SCRIPT [ARGS ...] [options]")
        add_script(sub)
        sub.add_argument("--json", action="store_true",
                         help=f"as JSON (schema_version {SCHEMA_VERSION})")
        if name != "recompile":
            sub.add_argument("--target", metavar="cuda:ARCH", default="",
                             help="explain the code for that GPU")
        if name == "memory":
            sub.add_argument("--svg", metavar="FILE", help="draw the largest program's memory")
        sub.set_defaults(run=action)


def _heading(seen: Seen) -> str:
    return f"==== program {seen.number:03}: {seen.about} ===="


def _watch(options: argparse.Namespace) -> Watch:
    """A watch that looks at programs as code for what was asked for."""
    from lazygrad.dump.options import OptionError, find_target
    from lazygrad.explain.watch import Watch
    try:
        find_target(options.target)
    except OptionError as error:
        raise UsageError(str(error)) from None
    return Watch(target=options.target)


def explain_fusion(options: argparse.Namespace) -> int:
    from lazygrad.explain import fusion
    watch = _watch(options)
    succeeded = run_watched(options, watch)
    found = [(seen, fusion.describe(seen.stages), fusion.describe_again(seen.stages))
             for seen in watch.programs]
    if options.json:
        print_json({"programs": [
            {"number": seen.number, "about": seen.about, "seams": described, "again": again}
            for seen, described, again in found]})
    else:
        for seen, described, again in found:
            parts = [_heading(seen), fusion.text(described), fusion.text_again(again)]
            print("\n".join(filter(None, parts)) + "\n")
        if not found:
            no_program("explain fusion", succeeded)
    unknown = any(seam["reason"] == "unknown" for _, described, _ in found for seam in described)
    return FINDING if unknown or not succeeded else OK


def explain_recompile(options: argparse.Namespace) -> int:
    from lazygrad.explain import recompile
    from lazygrad.explain.watch import Watch
    found: list[Recompile] = []
    watch = Watch()

    def new_program(seen: Seen) -> None:
        reason = recompile.explain_program(seen, watch.programs[:-1])
        if reason is not None:
            found.append(reason)

    watch.on_program = new_program
    recordings = recompile.Recordings(found.append).install()
    try:
        succeeded = run_watched(options, watch)
    finally:
        recordings.remove()
    reasons = [(getattr(function, "__name__", "function"), reason)
               for function in recordings.functions for reason in function.reasons]
    if options.json:
        print_json({
            "programs": len(watch.programs),
            "recompiles": [{"what": each.what, "earlier": each.earlier,
                            "changes": list(each.changes)} for each in found],
            "not_replayed": [{"function": name, "reason": reason} for name, reason in reasons]})
    else:
        for each in found:
            print(each)
        for name, reason in reasons:
            print(f"{name}(...) is not replayed: {reason}")
        again = sum(each.what.startswith("program ") for each in found)
        print(f"{counted(len(watch.programs), 'program')}, {again} of them like an earlier one; "
              f"{counted(len(found) - again, 'recording')} made anew", file=sys.stderr)
    return FINDING if found or not succeeded else OK


def explain_memory(options: argparse.Namespace) -> int:
    from lazygrad.explain import memory
    check_writable(options.svg)
    watch = _watch(options)
    succeeded = run_watched(options, watch)
    found = [(seen, memory.describe(seen.stages)) for seen in watch.programs]
    if options.json:
        print_json({"programs": [{"number": seen.number, "about": seen.about, **described}
                                 for seen, described in found]})
    else:
        for seen, described in found:
            print(f"{_heading(seen)}\n{memory.text(described)}\n")
        if not found:
            no_program("explain memory", succeeded)
    if options.svg and found:
        largest = max(found, key=_peak_bytes)[0]
        title = f"program {largest.number:03}: {largest.about}"
        write_text(options.svg, memory.picture(largest.stages, title))
    return OK if succeeded else FINDING


def explain_schedule(options: argparse.Namespace) -> int:
    from lazygrad.explain import schedules
    watch = _watch(options)
    succeeded = run_watched(options, watch)
    found = [(seen, schedules.describe(seen.stages)) for seen in watch.programs]
    if options.json:
        print_json({"programs": [{"number": seen.number, "about": seen.about, "kernels": described}
                                 for seen, described in found]})
    else:
        for seen, described in found:
            print(f"{_heading(seen)}\n{schedules.text(described)}\n")
        if not found:
            no_program("explain schedule", succeeded)
    return OK if succeeded else FINDING


def _peak_bytes(entry: tuple[Seen, dict[str, Any]]) -> int:
    return entry[1]["peak"]["bytes"]
