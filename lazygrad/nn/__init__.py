"""Neural networks: modules, parameters, losses, initialisation, under PyTorch's names."""

from lazygrad.nn import functional, init, utils
from lazygrad.nn.activation import (
                                    CELU,
                                    ELU,
                                    GELU,
                                    GLU,
                                    SELU,
                                    Hardshrink,
                                    Hardsigmoid,
                                    Hardswish,
                                    Hardtanh,
                                    LeakyReLU,
                                    LogSigmoid,
                                    LogSoftmax,
                                    Mish,
                                    PReLU,
                                    ReLU,
                                    ReLU6,
                                    Sigmoid,
                                    SiLU,
                                    Softmax,
                                    Softmax2d,
                                    Softmin,
                                    Softplus,
                                    Softshrink,
                                    Softsign,
                                    Tanh,
                                    Tanhshrink,
                                    Threshold,
)
from lazygrad.nn.attention import MultiheadAttention
from lazygrad.nn.containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from lazygrad.nn.conv import (
                                    Conv1d,
                                    Conv2d,
                                    Conv3d,
                                    ConvTranspose1d,
                                    ConvTranspose2d,
                                    ConvTranspose3d,
)
from lazygrad.nn.dropout import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d
from lazygrad.nn.embedding import Embedding
from lazygrad.nn.linear import Bilinear, Flatten, Identity, Linear, Unflatten
from lazygrad.nn.loss import (
                                    BCELoss,
                                    BCEWithLogitsLoss,
                                    CosineSimilarity,
                                    CrossEntropyLoss,
                                    HuberLoss,
                                    KLDivLoss,
                                    L1Loss,
                                    MSELoss,
                                    NLLLoss,
                                    PoissonNLLLoss,
                                    SmoothL1Loss,
)
from lazygrad.nn.module import Module
from lazygrad.nn.normalization import (
                                    BatchNorm1d,
                                    BatchNorm2d,
                                    BatchNorm3d,
                                    GroupNorm,
                                    InstanceNorm1d,
                                    InstanceNorm2d,
                                    InstanceNorm3d,
                                    LayerNorm,
                                    RMSNorm,
)
from lazygrad.nn.parameter import Buffer, Parameter
from lazygrad.nn.pooling import (
                                    AdaptiveAvgPool1d,
                                    AdaptiveAvgPool2d,
                                    AdaptiveAvgPool3d,
                                    AdaptiveMaxPool1d,
                                    AdaptiveMaxPool2d,
                                    AvgPool1d,
                                    AvgPool2d,
                                    AvgPool3d,
                                    MaxPool1d,
                                    MaxPool2d,
                                    MaxPool3d,
)
from lazygrad.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNBase, RNNCell
from lazygrad.nn.transformer import (
                                    Transformer,
                                    TransformerDecoder,
                                    TransformerDecoderLayer,
                                    TransformerEncoder,
                                    TransformerEncoderLayer,
)
