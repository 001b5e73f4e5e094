"""Launches in a row as one graph of the driver: a replay is one call.

The graph is a chain of kernel nodes, in order.  Its arguments are those of the run that it was made
for; where an address has moved since, the nodes that read it are given new arguments, and all
others keep theirs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int64, c_uint, c_void_p

from lazygrad_compiler.artifact import GridLaunch
from lazygrad_runtime.cuda.context import Device
from lazygrad_runtime.cuda.tensor_maps import Table, TensorMaps


class KernelNode(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS_v2 of cuda.h."""

    _fields_ = (
        ("function", c_void_p),
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared", c_uint),
        ("parameters", c_void_p),
        ("extra", c_void_p),
        ("kernel", c_void_p),
        ("context", c_void_p),
    )


class _Node:
    """One launch: what the driver is told of it, and where that is kept."""

    def __init__(
        self, launch: GridLaunch, function: int, maps: TensorMaps | None, error: int
    ) -> None:
        self.launch, self.maps = launch, maps
        count = len(launch.arguments)
        self.values = (c_int64 * (count + 2))()
        self.values[count], self.values[count + 1] = error, launch.number
        start = ctypes.addressof(self.values)
        pointers = [start + 8 * number for number in range(count + 2)]
        pointers += maps.addresses if maps is not None else []
        self.pointers = (c_void_p * len(pointers))(*pointers)
        self.described = KernelNode(
            function, launch.grid, launch.block, launch.shared,
            ctypes.addressof(self.pointers),
        )  # fmt: skip
        self.handle = c_void_p()

    def bind(self, table: Table) -> None:
        for number, (slot, offset) in enumerate(self.launch.arguments):
            self.values[number] = table[slot] + offset


class LaunchGraph:
    """A graph of launches, made for the addresses in `table`.

    error: address of the error block.  Raises what the driver reports.
    """

    def __init__(
        self, device: Device, launches: Sequence[GridLaunch], functions: Sequence[int],
        maps: Sequence[TensorMaps | None], error: int, table: Table,
    ) -> None:  # fmt: skip
        self.device, self.era = device, device.era
        self._graph: int | None = None
        self._executable: int | None = None
        driver = device.driver
        self._nodes = [
            _Node(launch, function, own, error)
            for launch, function, own in zip(launches, functions, maps, strict=True)
        ]
        self._readers: dict[int, list[_Node]] = {}
        self._graph = driver.get("cuGraphCreate", c_void_p, 0)
        before: _Node | None = None
        for node in self._nodes:
            node.bind(table)
            driver.cuGraphAddKernelNode_v2(
                ctypes.byref(node.handle), self._graph,
                None if before is None else ctypes.byref(before.handle), int(before is not None),
                ctypes.byref(node.described),
            )  # fmt: skip
            for slot in dict(node.launch.arguments):
                self._readers.setdefault(slot, []).append(node)
            before = node
        self._executable = driver.get("cuGraphInstantiateWithFlags", c_void_p, self._graph, 0)
        self._known = list(table)

    def update(self, table: Table) -> None:
        """Nodes that read what has moved get the new addresses.  Maps are encoded by now."""
        moved: dict[int, _Node] = {}
        for slot, nodes in self._readers.items():
            if table[slot] != self._known[slot]:
                moved.update((id(node), node) for node in nodes)
        for node in moved.values():
            node.bind(table)
            self.device.driver.cuGraphExecKernelNodeSetParams_v2(
                self._executable, node.handle, ctypes.byref(node.described)
            )
        self._known = list(table)

    def launch(self, stream: int) -> int:
        """The driver's code."""
        code: int = self.device.driver.raw("cuGraphLaunch")(self._executable, stream)
        return code

    def __del__(self) -> None:
        if not self.device.holds(self.era):
            return
        # their codes would help nobody
        if self._executable:
            self.device.driver.raw("cuGraphExecDestroy")(self._executable)
        if self._graph:
            self.device.driver.raw("cuGraphDestroy")(self._graph)
