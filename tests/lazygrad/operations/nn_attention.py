"""Scaled dot-product attention and multi-head attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from .record import ErrorInput, Maker, OperationRecord, Sample, sample

F = "nn.functional."
LOOSE = {"float32": (1e-4, 1e-5)}
MAKE = Maker("float32")


def _attention(make: Maker) -> Sequence[Sample]:
    query, key, value = make(2, 3, 4, 5), make(2, 3, 6, 5), make(2, 3, 6, 2)
    keep = make.mask(4, 6)
    keep[1] = False  # a row that may attend to nothing
    keep[0, 0] = True
    return [
        sample(query, key, value),
        sample(query, key, value, keep),
        sample(query, key, value, make(2, 1, 4, 6)),
        sample(query, key, value, is_causal=True),
        sample(query, key, value, scale=0.3),
        sample(make(4, 5), make(6, 5), make(6, 3)),
        sample(make(2, 4, 3, 5), make(2, 2, 6, 5), make(2, 2, 6, 5), enable_gqa=True),
    ]


def _multihead(make: Maker) -> Sequence[Sample]:
    x = make(3, 2, 4)
    weights = (make(12, 4), make(12))
    output = (make(4, 4), make(4))
    padding = numpy.array([[False, False, True], [False, True, True]])
    return [
        sample(x, x, x, 4, 2, *weights, None, None, False, 0.0, *output),
        sample(x, make(5, 2, 4), make(5, 2, 4), 4, 2, *weights, make(1, 1, 4), make(1, 1, 4), True,
               0.0, *output, attn_mask=make.mask(3, 5), average_attn_weights=False),
        sample(x, x, x, 4, 2, *weights, None, None, False, 0.0, *output,
               key_padding_mask=padding, attn_mask=make(4, 3, 3)),
        sample(x, make(5, 2, 3), make(5, 2, 6), 4, 2, None, make(12), None, None, False, 0.0,
               *output, use_separate_proj_weight=True, q_proj_weight=make(4, 4),
               k_proj_weight=make(4, 3), v_proj_weight=make(4, 6), need_weights=False),
        sample(make(3, 4), make(5, 4), make(5, 4), 4, 2, *weights, None, None, False, 0.0, *output),
    ]


QUERY = MAKE(2, 3, 4, 5)

RECORDS = [
    OperationRecord(f"{F}scaled_dot_product_attention", _attention, tolerance=LOOSE, compile=True,
                    errors=(
        ErrorInput(sample(QUERY, MAKE(2, 3, 6, 4), MAKE(2, 3, 6, 2)), RuntimeError, "do not fit"),
        ErrorInput(sample(QUERY, QUERY, MAKE(2, 3, 6, 2)), RuntimeError, "do not fit"),
        ErrorInput(sample(QUERY, QUERY, QUERY, MAKE(4, 4), is_causal=True), RuntimeError,
                   "exclude"),
        ErrorInput(sample(QUERY, QUERY, QUERY, MAKE(3, 4)), RuntimeError, "attn_mask|broadcast"),
        ErrorInput(sample(QUERY, QUERY, MAKE(2, 3, 4, 5, dtype="float64")), RuntimeError, "dtype"),
        ErrorInput(sample(QUERY, QUERY[:, :2], QUERY[:, :2], enable_gqa=True), RuntimeError,
                   "enable_gqa")),
                    accepts=("rank (0|down) at 3",),
                    note="A mask broadcasts to the scores, also one of a single axis or none."),
    OperationRecord(f"{F}multi_head_attention_forward", _multihead, tolerance=LOOSE,
                    errors=(
        ErrorInput(sample(MAKE(3, 2, 4), MAKE(5, 3, 4), MAKE(5, 3, 4), 4, 2, MAKE(12, 4), MAKE(12),
                          None, None, False, 0.0, MAKE(4, 4), MAKE(4)), RuntimeError, "batch"),)),
]
