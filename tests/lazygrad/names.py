"""docs/names.md: every public PyTorch name and its state here, made from the code.

`python -m tests.lazygrad.names` writes the page; it needs no PyTorch, only the list of its names
in `torch_names.json`, which `python -m tests.lazygrad.names --torch` makes anew from the PyTorch
that is installed.  A name is present if lazygrad has it; if not, it is missing, unless a rule of
`NOT_PLANNED` says why there is none.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

LIST = pathlib.Path(__file__).with_name("torch_names.json")
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "names.md"

NAMESPACES = ("torch", "torch.Tensor", "torch.nn", "torch.nn.functional", "torch.nn.init",
              "torch.nn.utils", "torch.linalg", "torch.fft", "torch.special", "torch.optim",
              "torch.optim.lr_scheduler", "torch.utils.data", "torch.autograd",
              "torch.autograd.functional", "torch.func")

NOT_PLANNED: tuple[tuple[str, str, str], ...] = (
    ("torch", r".*(Type|Storage|Script\w*|JIT\w*|Executor\w*|ParserState)$|"
     r"(Argument|ArgumentSpec|CompleteArgumentSpec|AliasDb|Block|CallStack|Capsule|Code|"
     r"CompilationUnit|ConcreteModuleTypeBuilder|DeepCopyMemoTable|"
     r"(De)?[Ss]erializationStorageContext|DispatchKey(Set)?|ErrorReport|ExcludeDispatchKeyGuard|"
     r"ExecutionPlan|FatalError|FileCheck|FunctionSchema|Future|Gradient|Graph|"
     r"GraphExecutorState|IODescriptor|LiteScriptModule|LockingLogger|LoggerBase|NoopLogger|"
     r"Node|OperatorInfo|PyTorchFile\w+|ScriptModule\w*|Script\w+|StaticModule|Tag|"
     r"ThroughputBenchmark|Benchmark\w+|TracingState|Type|Use|Value|AggregationType|AVG|SUM|"
     r"BufferDict|ModuleDict|ParameterDict|parse_\w+|import_ir_module\w*|"
     r"merge_type_from_type_comment|unify_type_list|fork|wait|export|cpp|classes|"
     r"DisableTorchFunction\w*)$",
     "TorchScript and internals of PyTorch's C++ side"),
    ("torch", r"Sym\w+|sym_\w+", "symbolic numbers of PyTorch's tracer"),
    ("torch|torch.Tensor", r"(cudnn|miopen|mkldnn|fbgemm)_\w+|.*_mkldnn|is_mkldnn|is_vulkan\w*|"
     r"is_(cpu_)?(ipu|maia|mps|mtia|xla|xpu|vulkan)|(ipu|mtia|xpu)|has_(mkl|lapack|openmp|spectral)",
     "a backend that only PyTorch has"),
    ("torch|torch.Tensor", r".*quant.*|per_(channel|tensor)_\w+|choose_qparams\w+|"
     r"q_\w+|qu?int\w+|qscheme|int_repr|Q\w+", "quantised tensors"),
    ("torch|torch.Tensor|torch.nn.functional",
     r".*sparse.*|(c?col|crow|row)_indices(_copy)?|indices(_copy)?|values(_copy)?|coalesce|"
     r"is_coalesced|dense_dim|to_dense|(ds|hs|s|sp|saddm|sspadd|hsp)mm|saddmm|sspaddmm|smm|spmm|"
     r"resize_as_sparse_|sparse_mask|SparseAdam", "sparse tensors"),
    ("torch.optim", r"SparseAdam", "sparse tensors"),
    ("torch|torch.Tensor", r".*nested.*|to_padded_tensor|jagged", "nested tensors"),
    ("torch", r"(int|uint)[1-7]|bits\w+|bit|float4\w*|complex32|chalf|float8\w+",
     "dtypes below 8 bits, and those that only a GPU computes with"),
    ("torch.Tensor", r"chalf", "dtypes below 8 bits, and those that only a GPU computes with"),
    ("torch", r"\w+_autocast\w*|autocast_\w+|get_device_module|AcceleratorError|Stream|Event|"
     r"OutOfMemoryError", "devices other than the CPU, and internals of autocast"),
    ("torch.Tensor", r"cuda|pin_memory|is_pinned|record_stream|is_shared|share_memory_",
     "devices other than the CPU"),
    ("torch", r"(Bool|Byte|Char|Double|Float|Int|Long|Short|Half|BFloat16)Tensor|"
     r"set_default_tensor_type|Typed\w*|Untyped\w*|is_storage|typename",
     "tensor types and storages of PyTorch's early days"),
    ("torch.Tensor", r"(untyped_)?storage(_type)?|new|resize|resize_as|volatile|name|output_nr|"
     r"reinforce|map_|map2_|is_set_to|grad_dtype|module_load|const_data_ptr|set_\b|"
     r"dim_order|slice_inverse|hash_tensor|apply_|index",
     "PyTorch's storage model and deprecated names"),
    ("torch|torch.Tensor", r"eig|lstsq|solve|symeig|matrix_rank|cholesky_(inverse|solve)_helper|"
     r"triangular_solve|geqrf|orgqr|ormqr|lobpcg", "deprecated, or LAPACK's internals: see linalg"),
    ("torch", r"\w+_copy|native_\w+|batch_norm_\w+|_\w+|sym_constrain\w*|slice_inverse|"
     r"hash_tensor|unsafe_\w+|(gru|lstm|rnn_tanh|rnn_relu)(_cell)?|"
     r"norm_except_dim|constant_pad_nd|embedding_renorm_|feature_dropout_?|affine_grid_generator|"
     r"grid_sampler\w*|convolution|is_vulkan_available|thread_safe_generator|empty_permuted|"
     r"init_num_threads|is_distributed|classproperty|compiled_with_\w+|StorageBase|"
     r"set_anomaly_enabled|is_anomaly_\w+|profiler_\w+|prepare_multiprocessing_environment|"
     r"max_pool\w+_with_indices|"
     r"get_file_path", "internals that PyTorch exposes beside their public names"),
    ("torch|torch.Tensor", r"(get|set)_(deterministic_debug_mode|float32_matmul_precision|"
     r"warn_always|flush_denormal|num_interop_threads)|is_warn_always_enabled|"
     r"is_deterministic_algorithms_warn_only_enabled|is_distributed|is_meta",
     "switches of PyTorch's kernels; results here are deterministic as they are"),
    ("torch.nn.functional", r"(scaled_)?(grouped_)?mm|scaled_grouped_mm|ScalingType|SwizzleType|"
     r"native_channel_shuffle|boolean_dispatch|assert_int_or_pair",
     "kernels for particular GPUs, and internals"),
    ("torch.utils.data", r".*Pipe.*|DataChunk|.*datapipe\w*|argument_validation|"
     r"runtime_validation\w*|non_deterministic|DistributedSampler|\w*datapipes\w*",
     "data pipes, which PyTorch has deprecated, and distributed sampling"),
    ("torch.autograd", r"NestedIOFunction|enforce_grad_layout_policy|set_multithreading_enabled|"
     r"grad_mode|variable", "internals of PyTorch's engine"),
    ("torch.func", r"functionalize|debug_unwrap|rearrange", "PyTorch's own graph tools"),
    ("torch.nn", r".*Quant.*|DataParallel|SyncBatchNorm|factory_kwargs|UninitializedBuffer|Buffer",
     "distributed and quantised layers"),
    ("torch.nn", r"Lazy\w+|Uninitialized\w+", "layers that learn their sizes from the first input"),
)
"""(namespaces, names, reason): regular expressions that match whole names.  Present names count as
present, whatever stands here."""


# ---- PyTorch's names


def _listed(module: Any, path: str) -> list[str]:
    """The public names of a module or class of PyTorch."""
    names = getattr(module, "__all__", None)
    if names is None or path == "torch":
        names = set(names or ()) | {
            name for name in dir(module)
            if not isinstance(getattr(module, name, None), types.ModuleType)
            and (path == "torch.Tensor" or _defined_in_torch(module, name, path))
        }
    return sorted({name for name in names if not name.startswith("_")})


def _defined_in_torch(module: Any, name: str, path: str) -> bool:
    """Whether a name of a module without `__all__` belongs there, not to one of its imports."""
    value = getattr(module, name, None)
    origin = getattr(value, "__module__", "") or ""
    is_constant = name.isupper() and not isinstance(value, type)
    if is_constant or name.endswith("_notes") or "torch_function" in name:
        return False
    if path == "torch":
        return origin.startswith("torch") or type(value).__module__.startswith("torch")
    same_part = origin.startswith("torch.nn") and path.startswith("torch.nn")
    return same_part or origin == path or origin.startswith("torch._C") or origin == "torch" \
        or (not origin and callable(value))


def _list_torch() -> dict[str, Any]:
    import torch
    found: dict[str, Any] = {}
    for path in NAMESPACES:
        module: Any = torch
        for part in path.split(".")[1:]:
            if not hasattr(module, part):
                importlib.import_module(f"{module.__name__}.{part}")
            module = getattr(module, part)
        found[path] = [name for name in _listed(module, path)
                       if name not in ("Optional", "Callable", "Tensor", "TYPE_CHECKING")
                       or (path == "torch" and name == "Tensor")]
    return {"version": torch.__version__.partition("+")[0], "names": found}


# ---- ours


def _ours(path: str) -> Any:
    """Our counterpart of a namespace; None where there is none."""
    import lazygrad
    found: Any = lazygrad
    for part in path.split(".")[1:]:
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(f"{found.__name__}.{part}")
            except (ImportError, AttributeError):
                return None
    return found


def _reason(path: str, name: str) -> str:
    for namespaces, pattern, reason in NOT_PLANNED:
        if re.fullmatch(namespaces, path) and re.fullmatch(pattern, name):
            return reason
    return ""


def states() -> Iterator[tuple[str, dict[str, str]]]:
    """For each namespace: name -> "present", "missing" or the reason why it is not planned."""
    for path, names in json.loads(LIST.read_text(encoding="utf-8"))["names"].items():
        ours = _ours(path)
        yield path, {
            name: "present" if hasattr(ours, name) else _reason(path, name) or "missing"
            for name in names
        }


# ---- the page


def _wrapped(names: list[str]) -> list[str]:
    """Names in code style, in lines of up to 100 columns."""
    lines, line = [], ""
    for name in names:
        word = f"`{name}`"
        if line and len(line) + len(word) > 97:
            lines.append(line)
            line = ""
        line = f"{line} {word}" if line else word
    return [*lines, line] if line else lines


def page() -> str:
    """The text of docs/names.md."""
    version = json.loads(LIST.read_text(encoding="utf-8"))["version"]
    lines = [
        "# PyTorch's names and their state here", "",
        f"Every public name of PyTorch {version}, and whether lazygrad has it.  Made from the",
        "code: write it anew with `python -m tests.lazygrad.names`; a test compares.", "",
        "| namespace | names | present | missing | not planned |",
        "|---|--:|--:|--:|--:|",
    ]
    sections: list[str] = []
    total = [0, 0, 0, 0]
    for path, found in states():
        present = [name for name, state in found.items() if state == "present"]
        missing = [name for name, state in found.items() if state == "missing"]
        reasons: dict[str, list[str]] = {}
        for name, state in found.items():
            if state not in ("present", "missing"):
                reasons.setdefault(state, []).append(name)
        counts = [len(found), len(present), len(missing),
                  len(found) - len(present) - len(missing)]
        total = [before + more for before, more in zip(total, counts, strict=True)]
        lines.append(f"| `{path}` | {' | '.join(map(str, counts))} |")
        sections += ["", f"## {path}", "", f"### Present: {len(present)}", "", *_wrapped(present)]
        if missing:
            sections += ["", f"### Missing: {len(missing)}", "", *_wrapped(missing)]
        for reason, names in reasons.items():
            sections += ["", f"### Not planned: {reason}", "", *_wrapped(names)]
    lines.append(f"| **all** | {' | '.join(map(str, total))} |")
    return "\n".join([*lines, *sections, ""])


def main(arguments: list[str]) -> None:
    if "--torch" in arguments:
        LIST.write_text(json.dumps(_list_torch(), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print("\n".join(line for line in PAGE.read_text(encoding="utf-8").splitlines()
                    if line.startswith("|")))


if __name__ == "__main__":
    main(sys.argv[1:])
