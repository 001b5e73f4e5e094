"""Which public operations are recorded as templates: the names that `operation` hands to `folding`.

Named here is what takes tensors and plain values and gives new tensors that follow from dtypes,
shapes and plain values alone.  Not named: what is one node anyway and quick (exp, add); what looks
at values or at how its operands were made (matmul finds attention written out); what gives views,
draws random numbers, or has effects.
"""

from __future__ import annotations

_NAMES = (
    # activations
    "relu gelu silu softplus mish logsigmoid leaky_relu elu selu celu hardtanh relu6 hardsigmoid "
    "hardswish hardshrink softshrink tanhshrink softsign threshold prelu glu softmax log_softmax "
    "softmin normalize "
    # normalisation, attention, losses
    "batch_norm instance_norm layer_norm rms_norm group_norm local_response_norm "
    "scaled_dot_product_attention cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss "
    "huber_loss binary_cross_entropy binary_cross_entropy_with_logits kl_div poisson_nll_loss "
    "gaussian_nll_loss linear_cross_entropy soft_margin_loss hinge_embedding_loss "
    "margin_ranking_loss cosine_embedding_loss triplet_margin_loss multi_margin_loss "
    "multilabel_margin_loss multilabel_soft_margin_loss cosine_similarity pairwise_distance "
    # products, convolution, pooling, pictures
    "linear bilinear einsum tensordot dot vdot outer kron cross cdist pdist cov corrcoef "
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d fold interpolate upsample grid_sample affine_grid "
    "pixel_shuffle pixel_unshuffle pad embedding one_hot recurrent_layer recurrent_cell "
    # elementwise operations of several nodes
    "clamp clamp_min clamp_max where masked_fill lerp addcmul addcdiv nan_to_num isinf isfinite "
    "isclose remainder floor_divide fmod hypot logaddexp logaddexp2 fmax fmin round copysign "
    "ldexp heaviside float_power xlogy sinc entr logit "
    # reductions, scans, order
    "sum nansum nanmean mean prod amax amin aminmax any all count_nonzero max min argmax argmin "
    "std var std_mean var_mean logsumexp norm vector_norm matrix_norm dist renorm "
    "cumsum cumprod cummax cummin logcumsumexp diff trapezoid cumulative_trapezoid "
    "sort argsort msort topk kthvalue median nanmedian mode searchsorted bucketize "
    # positions and arrangement
    "gather take_along_dim take scatter scatter_add scatter_reduce index_select index_add "
    "index_copy index_fill hstack vstack dstack column_stack repeat tile flip fliplr "
    "flipud roll rot90 tril triu diag_embed block_diag trace "
)

FOLDED = frozenset(_NAMES.split())

_SINGLE = (
    "matmul add sub mul div pow maximum minimum atan2 eq ne lt le gt ge neg abs floor ceil trunc "
    "square sqrt sigmoid exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh "
    "tanh asinh acosh atanh erf erfc bitwise_and bitwise_or bitwise_xor bitwise_not logical_not "
    "isnan "
)

SINGLE = frozenset(_SINGLE.split())
"""What is one node, which also follows from dtypes, shapes and plain values alone; of `matmul`,
unless its first operand is a quotient.
"""
