"""Device and dtype."""

import os
import subprocess
import sys

import pytest
import torch

from vdsr_cli import runtime
from vdsr_cli.errors import DeviceError, UsageError
from vdsr_cli.runtime import choose_runtime


@pytest.mark.parametrize(
    ("speedup", "dtype"), [(4.0, torch.bfloat16), (1.0, torch.float32), (0.1, torch.float32)]
)
def test_the_cpu_gets_bfloat16_where_that_is_faster(monkeypatch, speedup, dtype):
    monkeypatch.setattr(runtime, "_bfloat16_speedup", lambda: speedup)
    assert choose_runtime("cpu").dtype == dtype


def test_the_measurement_sees_that_bfloat16_is_emulated():
    """Told to keep to AVX2, the library has no matrix unit, whatever the processor says."""
    if not torch.backends.mkldnn.is_available() or not torch.cpu._is_avx512_supported():
        pytest.skip("needs oneDNN and a processor whose instructions it can be told not to use")
    script = "from vdsr_cli.runtime import choose_runtime; print(choose_runtime('cpu').dtype)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "torch.float32", done.stderr


def test_a_named_dtype_is_taken_without_measuring(monkeypatch):
    monkeypatch.setattr(runtime, "_bfloat16_speedup", lambda: pytest.fail("measured"))
    assert choose_runtime("cpu", "bfloat16").dtype == torch.bfloat16


def test_the_cpu_has_no_float16():
    with pytest.raises(DeviceError, match="float16"):
        choose_runtime("cpu", "float16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(DeviceError, match="no CUDA device") as caught:
        choose_runtime("cuda")
    assert caught.value.hint == "try --device cpu"


@pytest.mark.parametrize("name", ["", "no such", "cpu:-1", "meta", "vulkan", "out/a.png"])
def test_a_device_that_computes_nothing_is_refused(name):
    with pytest.raises(DeviceError, match="device") as caught:
        choose_runtime(name)
    assert caught.value.hint == "try --device cpu"


def test_a_dtype_that_is_none_is_refused():
    with pytest.raises(UsageError, match="no such dtype: 'int8'") as caught:
        choose_runtime("cpu", "int8")
    assert "bfloat16" in str(caught.value.hint)
