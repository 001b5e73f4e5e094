"""`lazygrad cache export|import`: taking programs to another machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from lazygrad.cli import FINDING, OK, UsageError, human_bytes
from lazygrad.cli.cache_list import find_entry, print_json, unusable
from lazygrad.cli.scripts import check_writable, written


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the file to write")
    parser.add_argument("keys", metavar="KEY", nargs="*", help="only these programs")


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a file that `export` wrote")
    parser.add_argument("--trust-native-code", action="store_true",
                        help="take the file's machine code where it fits this processor; it can do "
                             "anything that you can do. Without this, programs are compiled from "
                             "their graphs")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def export(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    from lazygrad_runtime.cache_entry import CacheDamage
    from lazygrad_runtime.cache_exchange import export_entries
    from lazygrad_runtime.cache_target import is_program, is_tuned
    if options.file == "-":
        raise UsageError("an archive is no text for standard output; name a file")
    check_writable(options.file)
    cache = CompileCache()
    if unusable(cache):
        return FINDING
    entries = [find_entry(cache, key) for key in options.keys] or [
        entry for entry in cache.entries() if is_program(entry) and not is_tuned(entry)]
    sound, damaged = [], {}
    for entry in entries:
        try:
            for name in entry.manifest["blobs"]:
                entry.read(name)
            sound.append(entry)
        except (CacheDamage, OSError) as error:
            damaged[entry.key] = str(error)
    with written(options.file):
        size = export_entries(sound, Path(options.file))
    if options.json:
        print_json({"file": options.file, "entries": len(sound), "bytes": size,
                    "left_out": damaged})
    else:
        print(f"{len(sound)} program{'s' * (len(sound) != 1)}, {human_bytes(size)}, "
              f"written to {options.file}")
        for key, why in damaged.items():
            print(f"{key[:12]}  left out: {why}")
    return FINDING if damaged else OK


def import_(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    from lazygrad_runtime.cache_exchange import ArchiveError, import_entries
    cache = CompileCache()
    if unusable(cache) or cache.opened() is None:
        return FINDING
    try:
        results = import_entries(cache, Path(options.file), options.trust_native_code,
                                 options.dry_run)
    except OSError as error:
        raise UsageError(f"{options.file}: {error.strerror or error}") from None
    except ArchiveError as error:
        raise UsageError(str(error)) from None
    if options.json:
        print_json({"file": options.file, "dry_run": options.dry_run, "entries": [
            {"key": each.key, "local_key": each.local_key, "outcome": each.outcome,
             "why": each.why} for each in results]})
    else:
        for each in results:
            print(f"{each.key[:12]}  {each.outcome}" + (f": {each.why}" if each.why else ""))
        counts = [f"{count} {outcome}" for outcome in ("as is", "recompiled", "present", "refused")
                  if (count := sum(each.outcome == outcome for each in results))]
        verb = " would be" if options.dry_run else ""
        print(f"{len(results)} program{'s' * (len(results) != 1)}{verb}: "
              f"{', '.join(counts) or 'nothing'}")
    return FINDING if any(each.outcome == "refused" for each in results) else OK
