"""What the explaining tools say: seams between kernels, recompiles, memory, roofline, and the
search for the decision that made a program wrong.  `lazygrad.cli` prints it.
"""
