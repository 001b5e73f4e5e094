"""The program that docs/architecture.md follows from the graph to native code."""

import lazygrad as lg

x = lg.rand(64, 256)
w = lg.rand(256, 128)
lg.synchronize()  # x and w are values from here on, no longer random numbers yet to be drawn

y = lg.softmax(x @ w, dim=1)
print(y.sum())
