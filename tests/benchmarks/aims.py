"""The figures that were set at the start, for two Zen 5 cores, against those of a run.

In: the results of a run, each with the peak measured in turns with it.  Out: the rows of a table:
what was aimed at, what came, the floor (the row's arithmetic or bytes at that peak; data that stays
in a cache can be faster) and whether the aim was met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.harness import Result
from tests.benchmarks.table import show_bytes, show_seconds

HEADER = ("benchmark", "aim", "measured", "best peer", "floor", "")


@dataclass(frozen=True, slots=True)
class Aim:
    """row: a benchmark's name.  seconds: at most so long.  ratio: at least so many times as fast as
    the fastest peer of the run (for memory: that many times less).  share: at least this part of
    the multiply-add peak.  read: at least this part of the read bandwidth.  One of them is given.
    """

    row: str
    seconds: float | None = None
    ratio: float | None = None
    share: float | None = None
    read: float | None = None

    def __post_init__(self) -> None:
        if [self.seconds, self.ratio, self.share, self.read].count(None) != 3:
            raise ValueError(f"[benchmark] {self.row}: an aim is one figure")

    def wanted(self) -> str:
        if self.seconds is not None:
            return show_seconds(self.seconds)
        if self.ratio is not None:
            return f"{self.ratio:.1f}x the best peer"
        if self.share is not None:
            return f"{self.share:.0%} of FMA"
        return f"{self.read:.0%} of read"

    def got(self, result: Result) -> tuple[str, bool] | None:
        """The figure in the aim's own terms, and whether it is enough; None where there is none."""
        ours = result.seconds.get("lazygrad")
        if ours is None:
            return None
        call = ours * result.benchmark.units
        if self.seconds is not None:
            return show_seconds(ours), ours <= self.seconds
        if self.ratio is not None:
            best = best_peer(result)
            return None if best is None else (f"{best / ours:.2f}x", best / ours >= self.ratio)
        if result.peak is None:
            return None
        if self.share is not None:
            share = result.benchmark.flops / result.peak.flops / call
            return f"{share:.0%} of FMA", share >= self.share
        assert self.read is not None
        read = result.benchmark.nbytes / result.peak.read / call
        return f"{read:.0%} of read", read >= self.read

    def limit(self, result: Result) -> float | None:
        """The seconds that meet an aim in seconds or in a ratio to the peers; None for others."""
        if self.seconds is not None:
            return self.seconds
        best = best_peer(result)
        if self.ratio is None or best is None or result.benchmark.in_bytes:
            return None
        return best / self.ratio


AIMS = (
    Aim("record-one-op", seconds=5e-6),
    *[Aim(f"matmul-{size}", ratio=1.0) for size in (128, 512, 1024, 2048)],
    *[Aim(f"matmul-{size}", share=0.92) for size in (512, 1024, 2048)],
    *[Aim(f"matmul-{size}", ratio=1.5)
      for size in ("48", "48-replay", "333x777x555", "1000", "20000x64x100", "8x2048x2048")],
    Aim("linear-gelu", seconds=11e-3),
    Aim("conv-3x3-64", seconds=5e-3),
    Aim("conv-depthwise-7x7", seconds=0.8e-3),
    Aim("attention-causal-4x8x1024", seconds=14e-3),
    Aim("attention-idiom-2x12x777", seconds=14e-3),
    Aim("chain-gelu-16M", seconds=10e-3),
    Aim("softmax-4096x4096", seconds=6e-3),
    Aim("layer-norm-8192x1024", seconds=3e-3),
    Aim("column-sum-8192x2048", read=1.0),
    Aim("gemv-4096", read=1.0),
    Aim("norm-swiglu-replay", seconds=0.9e-3),
    Aim("group-norm-silu-replay", seconds=0.4e-3),
    Aim("logsumexp-300x50257-replay", seconds=1.6e-3),
    Aim("cumsum-512x8191-replay", seconds=1.2e-3),
    Aim("topk-50-256x32000-replay", seconds=2.5e-3),
    Aim("replay-mlp-1", seconds=6e-6),
    Aim("mlp-step-replay", seconds=1.3e-3),
    Aim("resnet18-step-replay", seconds=270e-3),
    Aim("gpt-step-replay", seconds=450e-3),
    Aim("lstm-step-replay", seconds=15e-3),
    Aim("gru-step-replay", seconds=30e-3),
    Aim("vit-tiny-step-replay", seconds=100e-3),
    Aim("unet-step-replay", seconds=30e-3),
    Aim("dlrm-step-replay", seconds=4e-3),
    Aim("resnet18-first-step-cold", seconds=2.5),
    Aim("gpt-first-step-cold", seconds=1.5),
    Aim("resnet18-first-step-cached", seconds=0.5),
    Aim("gpt-first-step-cached", seconds=0.5),
    Aim("gpt-peak-memory", ratio=1.0),
)


def best_peer(result: Result) -> float | None:
    """The smallest time or size among the peers of a run."""
    return min((figure for name, figure in result.seconds.items() if name != "lazygrad"),
               default=None)


def floor(result: Result) -> float | None:
    """Seconds that the row's work takes at the peak."""
    row, peak = result.benchmark, result.peak
    if peak is None:
        return None
    least = max(row.flops / peak.flops, row.nbytes / peak.bandwidth)
    return least / row.units if least else None


def lines(results: Sequence[Result], aims: Sequence[Aim] = AIMS) -> list[list[str]]:
    """The table's rows, HEADER first: one for each aim whose benchmark was run.

    A missed aim below the floor of the run cannot be met in it, and says so.  A missed ratio above
    the floor says which part of the peak it asks for.
    """
    found = {result.benchmark.name: result for result in results}
    rows = [list(HEADER)]
    for aim in aims:
        result = found.get(aim.row)
        got = None if result is None else aim.got(result)
        if result is None or got is None:
            continue
        show = show_bytes if result.benchmark.in_bytes else show_seconds
        best, least = best_peer(result), floor(result)
        verdict = "met" if got[1] else "missed"
        limit = aim.limit(result)
        if not got[1] and limit is not None and least is not None:
            if least > limit:
                verdict += "; below the floor"
            elif aim.ratio is not None:
                verdict += f"; needs {least / limit:.0%} of the peak"
        rows.append([aim.row, aim.wanted(), got[0], "–" if best is None else show(best),
                     "–" if least is None else show(least), verdict])
    return rows
