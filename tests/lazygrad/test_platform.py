"""What scripts say around the actual work: devices, backends, jit, processes, versions."""

from __future__ import annotations

import importlib

import pytest

import lazygrad as lg

IMPORTS = {
    "amp": "autocast GradScaler", "cuda.amp": "autocast GradScaler",
    "backends.cudnn": "benchmark deterministic", "jit": "script trace ignore",
    "distributed": "is_available is_initialized", "mps": "manual_seed", "version": "cuda",
    "accelerator": "is_available", "testing": "assert_close",
    "nn.parallel": "DataParallel DistributedDataParallel",
    "nn.modules.batchnorm": "_BatchNorm BatchNorm2d", "nn.attention": "SDPBackend sdpa_kernel",
    "nn.modules.utils": "_pair _triple consume_prefix_in_state_dict_if_present",
    "nn.modules.loss": "_Loss _WeightedLoss", "nn.modules.conv": "_ConvNd", "nn.modules": "Module",
    "nn.modules.module": "Module", "nn.modules.transformer": "TransformerEncoderLayer",
    "optim.optimizer": "Optimizer", "optim.lr_scheduler": "LRScheduler _LRScheduler",
    "utils.data.sampler": "Sampler", "utils.data.dataset": "Dataset",
    "utils.data.dataloader": "default_collate", "autograd.function": "Function once_differentiable",
    "distributions": "Normal Categorical",
}


@pytest.mark.parametrize("path", IMPORTS)
def test_pytorch_paths_import(path: str) -> None:
    module = importlib.import_module(f"lazygrad.{path}")
    for name in IMPORTS[path].split():
        assert hasattr(module, name), name


def test_devices_are_asked_for_and_not_there() -> None:
    assert not lg.cuda.is_available() and not lg.backends.mps.is_available()
    assert lg.accelerator.current_accelerator() is None
    lg.cuda.manual_seed_all(0)
    lg.cuda.synchronize()
    lg.backends.cuda.matmul.allow_tf32 = True
    lg.backends.cudnn.benchmark = True
    assert lg.backends.cudnn.benchmark
    lg.set_float32_matmul_precision("high")
    assert lg.get_float32_matmul_precision() == "high"
    lg.set_float32_matmul_precision("highest")
    with pytest.raises(RuntimeError, match=r"\[cuda.current_device\] there is no device cuda"):
        lg.cuda.current_device()
    with pytest.raises(RuntimeError, match=r"no device meta .*Leave it out.*no values"):
        lg.empty(3, device="meta")
    with pytest.raises(ValueError, match="set_float32_matmul_precision.*highest"):
        lg.set_float32_matmul_precision("exact")


def test_choices_of_attention_are_accepted() -> None:
    backends = lg.nn.attention.SDPBackend
    x = lg.rand(1, 2, 3, 4)
    plain = lg.nn.functional.scaled_dot_product_attention(x, x, x)
    with lg.nn.attention.sdpa_kernel([backends.FLASH_ATTENTION, backends.MATH]):
        assert lg.equal(lg.nn.functional.scaled_dot_product_attention(x, x, x), plain)
    with pytest.raises(TypeError, match=r"\[sdpa_kernel\].*'math'"), \
            lg.nn.attention.sdpa_kernel(["math"]):
        pass


def test_prefixes_of_wrapped_modules_are_taken_off() -> None:
    from lazygrad.nn.modules.utils import consume_prefix_in_state_dict_if_present

    model = lg.nn.Linear(2, 3)
    state = lg.nn.Sequential()
    state.add_module("module", model)
    saved = state.state_dict()
    saved["other"] = lg.ones(1)
    consume_prefix_in_state_dict_if_present(saved, "module.")
    assert list(saved) == ["other", "weight", "bias"]
    assert list(saved._metadata) == [""] and saved.pop("other") is not None
    assert not lg.nn.Linear(2, 3).load_state_dict(saved).missing_keys


def test_version_is_that_of_the_package() -> None:
    from pathlib import Path
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert f'version = "{lg.__version__}"' in project.read_text(encoding="utf-8")
    assert lg.version.cuda is None


def test_jit_decorators_give_back_what_they_get() -> None:
    @lg.jit.script
    def double(x: lg.Tensor) -> lg.Tensor:
        return x * 2

    @lg.jit.ignore
    def plain(x: lg.Tensor) -> lg.Tensor:
        return x

    @lg.jit.ignore(drop=True)
    def dropped(x: lg.Tensor) -> lg.Tensor:
        return x

    assert double(lg.tensor(3)).item() == 6
    assert plain(1) == dropped(1) == 1
    module = lg.nn.Linear(2, 2)
    assert lg.jit.trace(module, lg.ones(1, 2)) is module
    with pytest.raises(NotImplementedError, match=r"jit.save.*state_dict"):
        lg.jit.save(module, "module.pt")


def test_one_process() -> None:
    assert not lg.distributed.is_available()
    assert (lg.distributed.get_rank(), lg.distributed.get_world_size()) == (0, 1)
    with pytest.raises(NotImplementedError, match="several processes"):
        lg.nn.parallel.DistributedDataParallel(lg.nn.Linear(1, 1))


def test_what_is_left_out_says_so() -> None:
    for name, way in {"sparse_coo_tensor": "index_add_", "nested": "pad_sequence",
                      "hub": "lazygrad.load"}.items():
        assert not hasattr(lg, name)
        with pytest.raises(AttributeError, match=f"lazygrad.{name} is not there.*{way}"):
            getattr(lg, name)


def test_assert_close() -> None:
    close = lg.testing.assert_close
    close(lg.ones(3), lg.ones(3) + 1e-7)
    close({"a": [lg.ones(2)]}, {"a": [lg.ones(2)]})
    with pytest.raises(AssertionError, match="Mismatched elements: 1 / 3"):
        close(lg.tensor([1.0, 2.0, 3.0]), lg.tensor([1.0, 2.1, 3.0]))
    with pytest.raises(AssertionError, match="shapes differ"):
        close(lg.ones(3), lg.ones(2))
    with pytest.raises(AssertionError, match="dtypes differ"):
        close(lg.ones(3), lg.ones(3, dtype=lg.float64))
    with pytest.raises(AssertionError):
        close(lg.tensor([lg.nan]), lg.tensor([lg.nan]))
