"""The runtime layer: artifacts in, numbers out. Memory, threads, native code, compile cache."""
