"""Looking into the compiler, by its public names; the parts are in `lazygrad.dump`.

    lazygrad.dump_ir(loss, stage="fused")         a pending tensor, without running it
    lazygrad dump-ir train.py --stage loops       every program of a script (`lazygrad.cli.dump`)
    LAZYGRAD_DUMP=graph,fused python train.py     the same to standard error, nothing else changed
"""

from __future__ import annotations

from lazygrad.dump.environment import install_from_environment
from lazygrad.dump.listen import Dump
from lazygrad.dump.options import (
    DEFAULT_STAGES,
    FORMATS,
    OptionError,
    Options,
    UnknownStage,
    make_options,
    parse_stages,
    parse_words,
)
from lazygrad.dump.stages import EXPLANATIONS
from lazygrad.dump.tensors import DumpText, dump_ir, recorded_graph
from lazygrad.dump.write import FolderWriter, StreamWriter

__all__ = ["DEFAULT_STAGES", "EXPLANATIONS", "FORMATS", "Dump", "DumpText", "FolderWriter",
           "OptionError", "Options", "StreamWriter", "UnknownStage", "dump_ir",
           "install_from_environment", "make_options", "parse_stages", "parse_words",
           "recorded_graph"]  # fmt: skip
