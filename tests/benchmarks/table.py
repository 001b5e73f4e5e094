"""Results as an aligned table, for a terminal or in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.harness import Result


def header(contestants: Sequence[str]) -> list[str]:
    """benchmark, a time per contestant, a ratio per peer, the row's work, the share of the peak."""
    peers = [name for name in contestants if name != "lazygrad"]
    return ["benchmark", *contestants, *[f"× {peer}" for peer in peers],
            "flops", "bytes", "of peak"]


def cells(result: Result, contestants: Sequence[str]) -> list[str]:
    """One row, as `header` names it.  "–": does not apply; "~": the rounds differ much;
    "failed", "WRONG": see the notes."""
    row = [result.benchmark.name]
    row += [_time_cell(result, name) for name in contestants]
    for peer in contestants:
        if peer != "lazygrad":
            ratio = result.ratio(peer)
            row.append("–" if ratio is None else f"{ratio:.2f}")
    row += [show_count(result.benchmark.flops), show_count(result.benchmark.nbytes)]
    share = None
    if "lazygrad" in result.seconds and result.peak is not None:
        share = result.peak.share(result.benchmark.flops, result.benchmark.nbytes,
                                  result.seconds["lazygrad"] * result.benchmark.units)
    row.append("–" if share is None else f"{share[0]:.0%} {share[1]}")
    return row


def _time_cell(result: Result, contestant: str) -> str:
    if contestant in result.seconds:
        figure = result.seconds[contestant]
        shown = show_bytes(figure) if result.benchmark.in_bytes else show_seconds(figure)
        return f"~{shown}" if contestant in result.unsteady else shown
    if contestant in result.disagreed:
        return "WRONG"
    note = result.notes.get(contestant, "")
    return "–" if not note or note.endswith("not installed") else "failed"


def show_seconds(seconds: float) -> str:
    """Three digits that count, in the fitting unit."""
    unit, scale = ("s", 1) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    value = seconds * scale
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}"


def show_count(count: float) -> str:
    """Three digits that count, in thousands, millions and so on; "–" for none."""
    if not count:
        return "–"
    for unit in ("", " k", " M", " G"):
        if count < 999.5 or unit == " G":
            break
        count /= 1000
    digits = 0 if count >= 99.95 or not unit else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f}{unit}"


def show_bytes(count: float) -> str:
    """Mebibytes."""
    return f"{count / 2**20:.0f} MiB"


def render(rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Rows, the header first, in aligned columns: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [row[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(f"| {' | '.join(padded)} |" if markdown else "  ".join(padded))
    if markdown:
        rules = ["-" * widths[0], *["-" * (width - 1) + ":" for width in widths[1:]]]
        lines.insert(1, f"| {' | '.join(rules)} |")
    return "\n".join(lines)


def notes(results: Sequence[Result]) -> list[str]:
    """What went wrong; a missing peer once, not in every row."""
    lines: dict[str, None] = {}
    for result in results:
        for contestant, note in result.notes.items():
            where = "" if note.endswith("not installed") else f"{result.benchmark.name}, "
            lines[f"{where}{contestant}: {note}"] = None
    return list(lines)


EXPLANATION = """\
Times are medians over rounds in which the contestants take turns (imports and first steps: the
best of some processes); "~" marks those whose quartiles lie more than 30 % apart. `× peer`: the
peer's time over lazygrad's, so above 1 lazygrad is faster. Where a row's name has `replay` in it,
lazygrad runs through `lg.compile`; else it records each call anew. "flops", "bytes": floating-point
operations, and bytes that must be read or written at least, of one call; "–" where they are not
counted, for what is bound by the other, or by neither. "of peak": the time that the
row's arithmetic, or the bytes that it must move at least, would take at the peak, over lazygrad's
time; the peak is a contestant of its own, measured in each round for as long as the others. Data
that stays in a cache can exceed the memory peak. All values were compared between the contestants
before anything was timed."""


def replace_section(page: Path, name: str, text: str) -> None:
    """Puts text between the marks `<!-- name -->` and `<!-- end of name -->` of a page; what stands
    around them stays.  A page without them, or none at all, gets them at its end.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    before, found, rest = old.partition(begin)
    if found:
        new = before + section + rest.partition(end)[2]
    else:
        new = (old.rstrip() + "\n\n" if old.strip() else "") + section + "\n"
    page.write_text(new, encoding="utf-8")


def peaks(results: Sequence[Result]) -> str:
    """The machine's peaks over all rows: their medians, and the lowest and highest."""
    found = [result.peak for result in results if result.peak is not None]
    if not found:
        return "not measured"
    parts = []
    for name, about, unit in (("flops", "FMA", "GFLOP/s"), ("read", "read", "GB/s"),
                              ("copy", "copy", "GB/s")):
        figures = sorted(getattr(peak, name) / 1e9 for peak in found)
        low, middle, high = figures[0], statistics.median(figures), figures[-1]
        parts.append(f"{about} {middle:.0f} {unit} ({low:.0f} to {high:.0f})")
    return f"{', '.join(parts)} on {found[0].threads} threads"


def document(
    results: Sequence[Result], contestants: Sequence[str], machine: str, command: str
) -> str:
    """The table with what belongs to it, in Markdown."""
    rows = [header(contestants), *[cells(result, contestants) for result in results]]
    parts = [
        f"Machine: {machine}.  \nPeak: median over the rows (lowest to highest): "
        f"{peaks(results)}.  \nCommand: `{command}`",
        EXPLANATION,
        render(rows, markdown=True),
        "\n".join(f"- `{r.benchmark.name}`: {r.benchmark.about}" for r in results),
    ]
    lines = notes(results)
    if lines:
        parts.append("Notes:\n\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts) + "\n"
