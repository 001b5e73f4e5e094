"""Places for the boxes of a directed graph, in layers from top to bottom.

The method is that of Sugiyama, Tagawa and Toda (Methods for visual understanding of hierarchical
system structures, 1981): every node goes into the layer behind its last predecessor; edges over
several layers get a stop in each layer between, so that they run between the nodes; the order in
the layers is improved by sweeps that sort by the mean place of the neighbours; last, nodes move
sideways towards their neighbours as far as the others in the layer let them.

Everything is iterative and takes the same course each time: the same graph gives the same picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GAP, LAYER_GAP = 18.0, 34.0
SWEEPS = 6
MOST_STOPS = 20_000
"""Stops of long edges; a graph with more gets straight edges, to stay quick."""

Key = Hashable
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """places: the middle of each node.  stops: of each edge, top to bottom.  Sizes in pixels."""

    places: dict[Any, Point]
    stops: dict[tuple[Any, Any], list[Point]]
    width: float
    height: float


def layered(sizes: Mapping[Any, tuple[float, float]], edges: Iterable[tuple[Any, Any]]) -> Layout:
    """Places for nodes of the given sizes (width, height).

    Edges that would close a circle are left out of account.
    """
    forward = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]
    order, rank = _ranks(sizes, forward)
    if not order:
        return Layout({}, {}, 0.0, 0.0)
    links, chains = _with_stops(forward, rank)
    layers = _layers(order, chains, rank)
    layers = _ordered(layers, links)
    widths = {key: sizes[key][0] for key in order}
    across = _across(layers, links, widths)
    left = min(x - widths.get(key, 0.0) / 2 for key, x in across.items())
    places: dict[Key, Point] = {}
    top = 0.0
    for layer in layers:
        height = max((sizes[key][1] for key in layer if key in sizes), default=0.0)
        for key in layer:
            places[key] = (across[key] - left, top + height / 2)
        top += height + LAYER_GAP
    width = max(x + widths.get(key, 0.0) / 2 for key, (x, _) in places.items())
    stops = {edge: [places[stop] for stop in chain] for edge, chain in chains.items()}
    return Layout({key: places[key] for key in order}, stops, width, top - LAYER_GAP)


def _ranks(sizes: Mapping[Any, tuple[float, float]],
           edges: Sequence[tuple[Key, Key]]) -> tuple[list[Key], dict[Key, int]]:
    """The nodes in an order along the edges, and their layers."""
    followers: dict[Key, list[Key]] = {key: [] for key in sizes}
    waiting = dict.fromkeys(sizes, 0)
    for start, end in edges:
        followers[start].append(end)
        waiting[end] += 1
    ready = [key for key in sizes if not waiting[key]]
    rank = dict.fromkeys(sizes, 0)
    order: list[Key] = []
    placed: set[Key] = set()
    while len(order) < len(sizes):
        if not ready:  # a circle: it is broken at the first node that is left
            ready = [next(key for key in sizes if key not in placed)]
        key = ready.pop(0)
        if key in placed:
            continue
        placed.add(key)
        order.append(key)
        for end in followers[key]:
            waiting[end] -= 1
            if end not in placed:
                rank[end] = max(rank[end], rank[key] + 1)
                if not waiting[end]:
                    ready.append(end)
    for key in reversed(order):  # sources come down to their readers: an input is beside its use
        if followers[key] and rank[key] == 0:
            rank[key] = max(min(rank[end] for end in followers[key]) - 1, 0)
    return order, rank


def _with_stops(edges: Sequence[tuple[Key, Key]], rank: dict[Key, int]
                ) -> tuple[list[tuple[Key, Key]], dict[tuple[Key, Key], list[Key]]]:
    """Edges from layer to layer, and the stops of each edge that is longer."""
    total = sum(max(rank[end] - rank[start] - 1, 0) for start, end in edges)
    links: list[tuple[Key, Key]] = []
    chains: dict[tuple[Key, Key], list[Key]] = {}
    for start, end in edges:
        if rank[end] <= rank[start] or total > MOST_STOPS:
            chains[start, end] = []
            if rank[end] > rank[start]:
                links.append((start, end))
            continue
        stops: list[Key] = [("stop", start, end, layer)
                            for layer in range(rank[start] + 1, rank[end])]
        chains[start, end] = stops
        for stop in stops:
            rank[stop] = stop[3]  # type: ignore[index]
        path = [start, *stops, end]
        links += itertools.pairwise(path)
    return links, chains


def _layers(order: Sequence[Key], chains: dict[tuple[Key, Key], list[Key]],
            rank: dict[Key, int]) -> list[list[Key]]:
    layers: list[list[Key]] = [[] for _ in range(max(rank[key] for key in order) + 1)]
    for key in order:
        layers[rank[key]].append(key)
    for chain in chains.values():
        for stop in chain:
            layers[rank[stop]].append(stop)
    return layers


def _neighbours(links: Sequence[tuple[Key, Key]]) -> tuple[dict[Key, list[Key]],
                                                            dict[Key, list[Key]]]:
    above: dict[Key, list[Key]] = {}
    below: dict[Key, list[Key]] = {}
    for start, end in links:
        above.setdefault(end, []).append(start)
        below.setdefault(start, []).append(end)
    return above, below


def _ordered(layers: list[list[Key]], links: Sequence[tuple[Key, Key]]) -> list[list[Key]]:
    """The layers with fewer crossings: sorted by the neighbours' mean place, down and up again."""
    above, below = _neighbours(links)
    for sweep in range(SWEEPS):
        neighbours = above if sweep % 2 == 0 else below
        course = range(len(layers)) if sweep % 2 == 0 else range(len(layers) - 1, -1, -1)
        place = {key: number / max(len(layer) - 1, 1) if len(layer) > 1 else 0.5
                 for layer in layers for number, key in enumerate(layer)}
        for number in course:
            layer = layers[number]
            wanted = {}
            for key in layer:
                near = neighbours.get(key, [])
                wanted[key] = (sum(place[other] for other in near) / len(near) if near
                               else place[key])
            layer.sort(key=wanted.__getitem__)
            for position, key in enumerate(layer):
                place[key] = position / (len(layer) - 1) if len(layer) > 1 else 0.5
    return layers


def _across(layers: Sequence[Sequence[Key]], links: Sequence[tuple[Key, Key]],
            widths: Mapping[Key, float]) -> dict[Key, float]:
    """The middle of each node from the left."""
    above, below = _neighbours(links)
    middle: dict[Key, float] = {}
    for layer in layers:
        x = 0.0
        for key in layer:
            width = widths.get(key, 0.0)
            middle[key] = x + width / 2
            x += width + GAP
        for key in layer:  # layers centred over each other
            middle[key] -= (x - GAP) / 2
    for sweep in range(SWEEPS):
        course = layers if sweep % 2 == 0 else list(reversed(layers))
        neighbours = above if sweep % 2 == 0 else below
        for layer in course:
            wanted = [_mean([middle[other] for other in neighbours.get(key, [])], middle[key])
                      for key in layer]
            for key, x in zip(layer, _apart(layer, wanted, widths), strict=True):
                middle[key] = x
    return middle


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _apart(layer: Sequence[Key], wanted: Sequence[float],
           widths: Mapping[Key, float]) -> list[float]:
    """Places as near to the wanted ones as the order and the gaps allow.

    Runs of nodes that touch move as one, to the mean of what they want (the pool of adjacent
    violators of isotonic regression).
    """
    before: list[float] = []  # how far each node's middle is from the first one's when all touch
    distance = 0.0
    for number, key in enumerate(layer):
        if number:
            distance += (widths.get(layer[number - 1], 0.0) + widths.get(key, 0.0)) / 2 + GAP
        before.append(distance)
    runs: list[list[float]] = []  # sum of wants, and how many
    for want, offset in zip(wanted, before, strict=True):
        runs.append([want - offset, 1])
        while len(runs) > 1 and runs[-2][0] / runs[-2][1] > runs[-1][0] / runs[-1][1]:
            total, count = runs.pop()
            runs[-1][0] += total
            runs[-1][1] += count
    starts = [total / count for total, count in runs for _ in range(int(count))]
    return [start + offset for start, offset in zip(starts, before, strict=True)]
