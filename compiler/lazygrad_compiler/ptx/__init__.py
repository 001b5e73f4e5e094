"""CUDA: kernels of the loop IR as LLVM text for NVPTX, and from there as PTX."""
