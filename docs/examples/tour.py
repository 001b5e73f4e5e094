"""The program that docs/architecture.md follows from the graph to native code."""

import lazygrad as lg

x = lg.rand(64, 256)
w = lg.rand(256, 128)
lg.synchronize()  # x and w are values from here on, not random numbers to be drawn in the same program

y = lg.softmax(x @ w, dim=1)
print(y.sum())
