"""`lazygrad cache verify`: whether everything in the cache is what it says it is."""

from __future__ import annotations

import argparse
import sys

from lazygrad.cli import FINDING, OK, UsageError
from lazygrad.cli.cache_list import find_entry, print_json, unusable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", metavar="KEY", nargs="*", help="only these programs")
    parser.add_argument("--recompile", action="store_true",
                        help="also compile each again and compare the code byte by byte")


def verify(options: argparse.Namespace) -> int:
    from lazygrad_runtime import cache_verify
    from lazygrad_runtime.cache import CompileCache
    cache = CompileCache()
    keys = None
    if options.keys:
        names = cache.keys()  # a damaged entry can be asked for, too
        keys = set()
        for prefix in options.keys:
            found = [key for key in names if key.startswith(prefix.lower())]
            keys.add(found[0] if len(found) == 1 else find_entry(cache, prefix).key)
    try:
        report = cache_verify.verify(cache, keys, options.recompile)
    except OSError as error:
        raise UsageError(f"{cache.path} cannot be read: {error}") from None
    if options.json:
        print_json({
            "path": str(cache.path), "entries": report.entries, "recompiled": report.recompiled,
            "skipped": report.skipped, "unclaimed_blobs": report.unclaimed,
            "temporary_files": report.temporaries,
            "findings": [{"key": each.key, "reason": each.reason, "message": each.message}
                         for each in report.findings]})
    else:
        for finding in report.findings:
            print(f"{finding.key[:12]}  {finding.reason}: {finding.message}")
        print(f"{report.entries} program{'s' * (report.entries != 1)} checked, "
              f"{len(report.findings)} damaged"
              + (f"; {report.recompiled} compiled again to the same bytes"
                 if options.recompile else "")
              + (f"; {report.unclaimed} blobs and {report.temporaries} temporary files belong to "
                 "no program (`lazygrad cache prune` deletes them)"
                 if report.unclaimed or report.temporaries else ""))
        for key, why in report.skipped.items():
            print(f"{key[:12]}  not compiled again: {why}", file=sys.stderr)
    return FINDING if unusable(cache) or report.findings else OK
