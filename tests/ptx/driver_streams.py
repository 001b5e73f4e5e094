"""The fake driver's streams, events, graphs: work runs at once, or when its graph is launched."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

from tests.ptx.driver_launch import LaunchCalls
from tests.ptx.driver_state import INVALID_HANDLE, INVALID_VALUE, SUCCESS, call, put


class StreamCalls(LaunchCalls):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._destroyed: list[int] = []

    @call(c_void_p, c_uint)
    def cuStreamCreate(self, stream: int, flags: int) -> int:
        if self._destroyed:  # as the driver does it: the handle is a pointer
            number = self._destroyed.pop()
            self.handles[number] = "stream"
            put(stream, number)
            return SUCCESS
        put(stream, self.handle("stream"))
        return SUCCESS

    @call(c_void_p)
    def cuStreamDestroy_v2(self, stream: int) -> int:
        self.handles.pop(stream)
        self._destroyed.append(stream)
        return SUCCESS

    @call(c_void_p)
    def cuStreamSynchronize(self, stream: int | None) -> int:
        if self.order:
            self.order.host_waits(self.order.clock(stream))
        return SUCCESS

    @call(c_void_p)
    def cuStreamQuery(self, stream: int | None) -> int:
        return SUCCESS

    @call(c_void_p, c_void_p, c_uint)
    def cuStreamWaitEvent(self, stream: int | None, event: int, flags: int) -> int:
        if self.order:
            self.order.wait(stream, event)
        return SUCCESS if event in self.handles else INVALID_HANDLE

    @call(c_void_p, c_uint)
    def cuEventCreate(self, event: int, flags: int) -> int:
        put(event, self.handle([0]))
        return SUCCESS

    @call(c_void_p, c_void_p)
    def cuEventRecord(self, event: int, stream: int | None) -> int:
        self.handles[event][0] = len(self.calls)
        if self.order:
            self.order.record(event, stream)
        return SUCCESS

    @call(c_void_p)
    def cuEventSynchronize(self, event: int) -> int:
        if self.order:
            self.order.host_waits(self.order.events.get(event, {}))
        return SUCCESS if event in self.handles else INVALID_HANDLE

    @call(c_void_p)
    def cuEventQuery(self, event: int) -> int:
        return SUCCESS if event in self.handles else INVALID_HANDLE

    @call(c_void_p, c_void_p, c_void_p)
    def cuEventElapsedTime(self, milliseconds: int, start: int, end: int) -> int:
        """Not a time: the number of driver calls between, in thousandths."""
        passed = self.handles[end][0] - self.handles[start][0]
        c_float.from_address(milliseconds).value = passed / 1000
        return SUCCESS

    @call(c_void_p)
    def cuEventDestroy_v2(self, event: int) -> int:
        self.handles.pop(event)
        return SUCCESS

    # ---- graphs

    @call(c_void_p, c_int)
    def cuStreamBeginCapture_v2(self, stream: int, mode: int) -> int:
        self.capturing[stream] = []
        return SUCCESS

    @call(c_void_p, c_void_p)
    def cuStreamEndCapture(self, stream: int, graph: int) -> int:
        put(graph, self.handle(self.capturing.pop(stream)))
        return SUCCESS

    @call(c_void_p, c_uint)
    def cuGraphCreate(self, graph: int, flags: int) -> int:
        if flags:
            return INVALID_VALUE
        put(graph, self.handle([]))
        return SUCCESS

    def _node_work(self, described: int) -> Callable[[], int] | int:
        """The launch that a CUDA_KERNEL_NODE_PARAMS_v2 describes: function, grid, block, shared
        bytes, parameters, extra, kernel, context.
        """
        function = c_uint64.from_address(described).value
        sizes = list((c_uint * 7).from_address(described + 8))
        parameters, extra = (c_uint64 * 2).from_address(described + 40)
        if extra:
            return INVALID_VALUE
        grid, block = (sizes[0], sizes[1], sizes[2]), (sizes[3], sizes[4], sizes[5])
        return self.launch_work(function, grid, block, sizes[6], parameters)

    @call(c_void_p, c_void_p, c_void_p, c_size_t, c_void_p)
    def cuGraphAddKernelNode_v2(
        self, node: int, graph: int, before: int | None, count: int, described: int
    ) -> int:
        """Nodes run in the order they were added in, which must be a chain."""
        launches = self.handles[graph]
        wanted = [(graph, len(launches) - 1)] if launches else []
        named = (c_uint64 * count).from_address(before) if before and count else ()
        if [self.handles[each] for each in named] != wanted:
            self.last_error = "cuGraphAddKernelNode_v2: not after the node before"
            return INVALID_VALUE
        work = self._node_work(described)
        if not callable(work):
            return work
        put(node, self.handle((graph, len(launches))))
        launches.append(work)
        return SUCCESS

    @call(c_void_p, c_void_p, c_void_p)
    def cuGraphExecKernelNodeSetParams_v2(
        self, executable: int, node: int, described: int
    ) -> int:
        graph, number = self.handles[node]
        if graph not in self.handles:
            return INVALID_HANDLE
        work = self._node_work(described)
        if not callable(work):
            return work
        self.handles[executable][number] = work
        return SUCCESS

    @call(c_void_p, c_void_p, c_uint64)
    def cuGraphInstantiateWithFlags(self, executable: int, graph: int, flags: int) -> int:
        put(executable, self.handle(list(self.handles[graph])))
        return SUCCESS

    @call(c_void_p, c_void_p)
    def cuGraphLaunch(self, executable: int, stream: int | None) -> int:
        works = list(self.handles[executable])

        def all_of_it() -> int:
            return next((code for work in works if (code := work())), SUCCESS)

        return self.enqueue(stream, all_of_it)

    @call(c_void_p)
    def cuGraphExecDestroy(self, executable: int) -> int:
        self.handles.pop(executable)
        return SUCCESS

    @call(c_void_p)
    def cuGraphDestroy(self, graph: int) -> int:
        self.handles.pop(graph)
        return SUCCESS
