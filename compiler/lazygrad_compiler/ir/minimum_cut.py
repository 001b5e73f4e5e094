"""A minimum cut of a network, by Dinic's algorithm (1970).

Networks here have tens to some thousand nodes, and whole numbers as capacities.  networkx has the
same; importing it takes a tenth of a second, which a first step would wait for.
"""

from __future__ import annotations

from collections.abc import Hashable

UNLIMITED = 1 << 62
"""The capacity of an edge that is never cut."""


class Network:
    """A network from "source" to "sink"; edges are added one by one, those between the same nodes
    side by side.
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {"source": 0, "sink": 1}
        self._edges: list[list[int]] = [[], []]  # of each node; edge e ^ 1 is e backwards
        self._head: list[int] = []
        self._left: list[int] = []

    def edge(self, tail: Hashable, head: Hashable, capacity: int = UNLIMITED) -> None:
        one, other = self._node(tail), self._node(head)
        for start, end, left in ((one, other, capacity), (other, one, 0)):
            self._edges[start].append(len(self._head))
            self._head.append(end)
            self._left.append(left)

    def _node(self, name: Hashable) -> int:
        number = self._numbers.setdefault(name, len(self._numbers))
        if number == len(self._edges):
            self._edges.append([])
        return number

    def before(self) -> set[Hashable]:
        """The nodes on the source's side of the minimum cut that lies closest to the sink.

        ValueError where no cut is finite.
        """
        flow = 0
        while (distances := self._distances())[0] >= 0:
            flow += self._blocking_flow(distances)
            if flow >= UNLIMITED:
                raise ValueError("a path of unlimited edges leads from source to sink")
        return {name for name, number in self._numbers.items() if distances[number] < 0}

    def _distances(self) -> list[int]:
        """Of each node to the sink, along edges that can take more; -1 where there is no way."""
        found = [-1] * len(self._edges)
        found[1] = 0
        layer = [1]
        while layer:
            further = []
            for current in layer:
                for edge in self._edges[current]:
                    tail = self._head[edge]
                    if found[tail] < 0 and self._left[edge ^ 1]:
                        found[tail] = found[current] + 1
                        further.append(tail)
            layer = further
        return found

    def _blocking_flow(self, distances: list[int]) -> int:
        """What goes along shortest paths until each has a full edge."""
        total = 0
        tried = [0] * len(self._edges)
        path: list[int] = []
        current = 0
        while True:
            if current == 1:
                amount = min(self._left[edge] for edge in path)
                for edge in path:
                    self._left[edge] -= amount
                    self._left[edge ^ 1] += amount
                total += amount
                full = next(n for n, edge in enumerate(path) if not self._left[edge])
                current = self._head[path[full] ^ 1]
                del path[full:]
                continue
            edges = self._edges[current]
            while tried[current] < len(edges):
                edge = edges[tried[current]]
                end = self._head[edge]
                if self._left[edge] and distances[end] == distances[current] - 1:
                    break
                tried[current] += 1
            else:
                if not path:
                    return total
                edge = path.pop()
                current = self._head[edge ^ 1]
                tried[current] += 1
                continue
            path.append(edge)
            current = end
