"""CUDA through the driver alone: `libcuda.so.1` by ctypes, no toolkit.

    driver.py     the calls used, typed; each return code checked
    errors.py     what the driver's error codes mean for users
    context.py    devices, their primary contexts, and what becomes of a lost one
    stream.py     streams, events, the current stream of a thread
    memory.py     the caching allocator, device buffers, counters
    pinned.py     page-locked host memory
    transfer.py   copies between host and device, through pinned staging memory
    module.py     PTX to cubin, kept on disk; loaded functions
    launcher.py   launching a whole program: a native loop, later a graph
    graph.py      graphs of the driver
    tensor_maps.py  what the copy engine has to know of arrays
    program.py    compiled graphs that run on a device

Nothing here is imported before a program asks for a CUDA device.
"""
