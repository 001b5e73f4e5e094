"""The machinery under the tensors: cells and views, recording, flushing, the backward engine."""
