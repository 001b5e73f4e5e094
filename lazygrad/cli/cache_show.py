"""`lazygrad cache show`: one program, from the fields of its key to its instructions.

Nothing that is stored is executed.  The later stages are made again from the stored graph, for the
target that the program was compiled for; no disassembler is needed, since compiling gives the same
bytes again, and whether it did is checked and said.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from lazygrad.cli import FINDING, OK, UsageError, human_age, human_bytes
from lazygrad.cli.cache_list import (
    find_entry,
    kind_of,
    lines_of,
    print_json,
    short_lines,
    unusable,
)

if TYPE_CHECKING:
    from lazygrad_runtime.cache import CompileCache
    from lazygrad_runtime.cache_entry import CacheEntry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="of the program; its first digits will do")
    parser.add_argument("--stage", metavar="STAGES", default="",
                        help="also show these, comma between, or all: graph, opt, fused, loops, "
                             "llvm, llvm-opt, asm")


def _stages(text: str) -> tuple[str, ...]:
    from lazygrad.dump.options import UnknownStage, parse_stages
    if not text:
        return ()
    try:
        stages = parse_stages(text)
    except UnknownStage as error:
        raise UsageError(f"--stage: {error}") from None
    if stages == ("grad",):
        raise UsageError("--stage grad: a stored graph has the backward pass in it, but not which "
                         "part it is; use `lazygrad dump-ir SCRIPT --stage grad`")
    return tuple(stage for stage in stages if stage != "grad")


def show(options: argparse.Namespace) -> int:
    from lazygrad_runtime.cache import CompileCache
    from lazygrad_runtime.cache_entry import CacheDamage
    wanted = _stages(options.stage)
    cache = CompileCache()
    if unusable(cache):
        return FINDING
    entry = find_entry(cache, options.key)
    values = facts(cache, entry)
    damage = ""
    try:
        for name in entry.manifest["blobs"]:
            entry.read(name)
        texts, asm_note = render(entry, wanted) if wanted else ({}, "")
    except (CacheDamage, OSError) as error:
        texts, asm_note, damage = {}, "", str(error)
    if options.json:
        print_json({**values, "stages": texts, "code": asm_note, "damage": damage})
    else:
        print_facts(values)
        for stage, text in texts.items():
            print(f"\n{_heading(stage)}\n{text.rstrip()}")
        if asm_note:
            print(f"\n{asm_note}")
        if damage:
            print(f"damaged: {damage}", file=sys.stderr)
    return FINDING if damage else OK


def _heading(stage: str) -> str:
    from lazygrad.dump.stages import heading
    return heading(stage)


def facts(cache: CompileCache, entry: CacheEntry) -> dict[str, Any]:
    """The manifest and what is known of the entry's use, as plain values."""
    from lazygrad_runtime.cache_target import built_for, machine_features, needed_features
    from lazygrad_runtime.cache_verify import made_by_this_compiler
    now, hits = time.time(), cache.hits_of(entry, cache.totals())
    meta = entry.meta
    return {
        "key": entry.key,
        "kind": kind_of(entry),
        "winner": _winner(entry),
        "manifest": str(cache.path / "entries" / f"{entry.key}.json"),
        "created": entry.created,
        "age_seconds": max(round(now - entry.created, 3), 0.0),
        "unused_seconds": max(round(now - cache.last_used(entry), 3), 0.0),
        "hits": hits,
        "compile_seconds": round(entry.seconds, 6),
        "saved_seconds": round(hits * entry.seconds, 6),
        "fields": entry.fields,
        "imported_from": dict(built_for(entry)) if "built_for" in meta else None,
        "missing_features": sorted(needed_features(entry) - machine_features()),
        "compiler_differs": made_by_this_compiler(entry),
        "lines": lines_of(entry),
        "inputs": meta.get("inputs", 0),
        "outputs": [f"{dtype}{shape}" for dtype, shape in meta.get("outputs", [])],
        "arena_bytes": meta.get("arena_bytes", 0),
        "scratch_bytes": meta.get("scratch_bytes", 0),
        "launches": [{"kernel": kernel, "compute": about,
                      "lines": [f"{file}:{line}" for file, line in where]}
                     for kernel, about, where in meta.get("launches", [])],
        "blobs": entry.manifest["blobs"],
    }


def _winner(entry: CacheEntry) -> dict[str, Any] | None:
    """Of an entry that is a kernel's schedule, what tuning found."""
    from lazygrad_compiler.target import host
    from lazygrad_runtime.store import environment_fields
    from lazygrad_runtime.tuned_schedules import against, is_schedule, winner_of
    winner = winner_of(entry) if is_schedule(entry) else None
    if winner is None:
        return None
    return {"schedule": json.loads(winner.tuned.schedule), "default": json.loads(winner.default),
            "speedup": winner.tuned.speedup if winner.is_better else 1.0,
            "default_seconds": winner.seconds[0], "seconds": winner.seconds[1],
            "tried": winner.tried, "complete": winner.complete,
            "unused": against(entry, environment_fields(host()))}


def _print_winner(winner: dict[str, Any]) -> None:
    from lazygrad.explain.roofline import duration
    kind, schedule = winner["schedule"]
    print(f"used here  {'no: ' + winner['unused'] if winner['unused'] else 'yes'}")
    found = (f"tuned, {winner['speedup']:.2f}x over the default"
             if winner["schedule"] != winner["default"] else "the default is the fastest")
    more = "" if winner["complete"] else " until time was up"
    print(f"schedule   {found}, of {winner['tried']} that were timed{more}: "
          f"{duration(winner['default_seconds'])} -> {duration(winner['seconds'])}")
    default = winner["default"][1] if winner["default"][0] == kind else {}
    for name, value in schedule.items():
        was = default.get(name, value)
        print(f"  {name:16} {value}" + (f" (default {was})" if was != value else ""))


def print_facts(values: dict[str, Any]) -> None:
    blobs = values["blobs"]
    size = sum(record["size"] for record in blobs.values())
    print(f"key        {values['key']}")
    if values["kind"] != "program":
        print(f"kind       {values['kind']}")
    print(f"manifest   {values['manifest']}")
    print(f"age        {human_age(values['age_seconds'])}; "
          f"last used {human_age(values['unused_seconds'])} ago")
    if values["winner"] is None:
        print(f"compiled   in {values['compile_seconds']:.3f} s; {values['hits']} "
              f"hit{'s' * (values['hits'] != 1)} saved {values['saved_seconds']:.3f} s")
        lacks = ", ".join(values["missing_features"])
        print(f"runs here  {'no: this processor lacks ' + lacks if lacks else 'yes'}")
    if values["compiler_differs"] and values["winner"] is None:
        print(f"compiler   {values['compiler_differs']}; no present program finds it")
    if values["imported_from"] is not None:
        there = values["imported_from"]
        print(f"imported   native code made for {there.get('cpu') or there.get('arch')} "
              f"{there.get('triple')}")
    print(f"lines      {short_lines(values['lines'], most=12)}")
    if values["winner"] is not None:
        _print_winner(values["winner"])
    outputs = values["outputs"]
    more = f" and {len(outputs) - 3} more" if len(outputs) > 3 else ""
    if outputs:
        print(f"memory     {values['inputs']} inputs; outputs {', '.join(outputs[:3])}{more}; "
              f"arena {human_bytes(values['arena_bytes'])}, "
              f"scratch {human_bytes(values['scratch_bytes'])} a thread")
    print("fields of the key")
    for name, value in values["fields"].items():
        print(f"  {name:10} {value}")
    print("kernel calls")
    for number, launch in enumerate(values["launches"]):
        print(f"  {number:3} {launch['kernel']:18} {launch['compute']:20} "
              f"{short_lines(launch['lines'])}")
    print(f"blobs      {len(blobs)}, {human_bytes(size)}")
    for name, record in blobs.items():
        print(f"  {name:20} {human_bytes(record['size']):>10}  {record['sha256'][:16]}")


def render(entry: CacheEntry, wanted: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """The stages' texts, and how the assembly relates to the stored code.  Raises CacheDamage."""
    from lazygrad_compiler.artifact import tuning_of
    from lazygrad_compiler.pipeline import lower
    from lazygrad_runtime import store
    from lazygrad_runtime.cache_entry import CacheDamage
    from lazygrad_runtime.cache_target import built_for, target_of
    from lazygrad_runtime.cache_verify import (
        compare_recompiled,
        made_by_this_compiler,
        stored_graph,
    )
    if store.GRAPH_BLOB not in entry.manifest["blobs"]:
        raise CacheDamage("graph", "the entry has no graph, so there are no stages to show")
    graph = stored_graph(entry)
    texts = {"graph": entry.read(store.GRAPH_BLOB).decode()} if "graph" in wanted else {}
    later = [stage for stage in wanted if stage != "graph"]
    if not later:
        return texts, ""
    stages = lower(graph, target_of(built_for(entry)), tuning_of(entry.meta.get("tuning", [])))
    texts |= {stage: stages.render(stage) for stage in later}
    if "asm" not in later:
        return texts, ""
    other = made_by_this_compiler(entry)
    try:
        compare_recompiled(entry, graph)
        note = ("; The stored object code is, byte for byte, what compiling the stored graph "
                "gives: this is its assembly.")
    except CacheDamage as error:
        note = (f"; This is the present compiler's assembly of the stored graph; the stored code "
                f"differs ({other or error}).")
    return texts, note
