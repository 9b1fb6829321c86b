"""Kernels in CUDA C++: compiled for this GPU when first wanted, kept on disk, launched on a stream.

NVRTC, a part of CUDA's runtime, compiles them: no toolchain is needed. Knows no kernel.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from cuda.bindings import driver, nvrtc
from torch import Tensor

KERNELS = Path(__file__).parent / "kernels"
HEADERS = ("device.cuh", "norm/rows.cuh")
# Contraction is off: which products are fused with a sum is written in the source.
OPTIONS = ("--std=c++17", "--fmad=false")


class CudaError(Exception):
    """A call to the CUDA driver or to NVRTC failed. One line."""


class CudaKernel:
    """One kernel of a source file in `kernels/`, with its compile-time sizes defined.

    shared_bytes: the dynamic shared memory of a block. Raises CudaError.
    """

    def __init__(
        self, source: str, name: str, definitions: Mapping[str, int], shared_bytes: int = 0
    ) -> None:
        self._shared_bytes = shared_bytes
        module = _checked(driver.cuModuleLoadData(_cubin(source, definitions)))
        self._function = _checked(driver.cuModuleGetFunction(module, name.encode()))
        attributes = driver.CUfunction_attribute
        limit = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(self._function, limit, shared_bytes))
        prefer_shared_memory(int(self._function))

    def __call__(
        self,
        grid: tuple[int, int, int],
        threads: int,
        arguments: Sequence[Tensor | int | float],
        cluster: int = 1,
    ) -> None:
        """Launch on torch's current stream, so that it may start while the last kernel runs.

        `cluster` neighbours along the grid's first axis can read each other's shared memory.
        Integers are passed as int, floats as float, tensors as their addresses.
        """
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.sharedMemBytes = self._shared_bytes
        config.hStream = torch.cuda.current_stream().cuda_stream
        config.attrs = [_overlap(), _cluster(cluster)]
        config.numAttrs = len(config.attrs)
        # The driver wants the bytes now; a tensor's memory must last as long as a graph of this.
        values = tuple(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
        kinds = tuple(_kind(argument) for argument in arguments)
        _checked(driver.cuLaunchKernelEx(config, self._function, (values, kinds), 0))


def _overlap() -> Any:
    attribute = driver.CUlaunchAttribute()
    kinds = driver.CUlaunchAttributeID
    attribute.id = kinds.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    attribute.value.programmaticStreamSerializationAllowed = 1
    return attribute


def _cluster(size: int) -> Any:
    attribute = driver.CUlaunchAttribute()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    dimension = attribute.value.clusterDim
    dimension.x, dimension.y, dimension.z = size, 1, 1
    return attribute


def prefer_shared_memory(function: int) -> None:
    """Run a kernel with all of a multiprocessor's fast memory as shared memory.

    Kernels that want it cut in different ways cannot be on one multiprocessor at a time.
    """
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
    _checked(driver.cuFuncSetAttribute(driver.CUfunction(function), attribute, 100))


def _kind(argument: Tensor | int | float) -> Any:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p
    return ctypes.c_int if isinstance(argument, int) else ctypes.c_float


def _checked(answer: tuple[Any, ...]) -> Any:
    error, *results = answer
    if int(error) != 0:
        raise CudaError(f"CUDA: {error.name}")
    return results[0] if results else None


@cache
def _texts(source: str) -> tuple[bytes, ...]:
    return tuple((KERNELS / name).read_bytes() for name in (source, *HEADERS))


def _cubin(source: str, definitions: Mapping[str, int]) -> bytes:
    """Machine code, from the cache if it was compiled before with the same text and options."""
    major, minor = torch.cuda.get_device_capability()
    options = (
        f"--gpu-architecture=sm_{major}{minor}",
        *OPTIONS,
        *(f"-D{name}={value}" for name, value in definitions.items()),
    )
    version = _checked_version()
    digest = hashlib.sha256(repr((version, options, _texts(source))).encode()).hexdigest()
    path = _cache_folder() / f"{digest}.cubin"
    if path.is_file():
        return path.read_bytes()
    code = _compile(source, options)
    _keep(path, code)
    return code


def _checked_version() -> tuple[int, int]:
    error, major, minor = nvrtc.nvrtcVersion()
    _checked((error,))
    return major, minor


def _compile(source: str, options: Sequence[str]) -> bytes:
    text, *headers = _texts(source)
    names = [name.rpartition("/")[2].encode() for name in HEADERS]
    program = _checked(nvrtc.nvrtcCreateProgram(text, source.encode(), len(names), headers, names))
    (error,) = nvrtc.nvrtcCompileProgram(
        program, len(options), [option.encode() for option in options]
    )
    if int(error) != 0:
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        first_line = log.decode(errors="replace").strip().partition("\n")[0]
        raise CudaError(f"{source}: NVRTC cannot compile it: {first_line}")
    code: bytes = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return code


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "santacoder-serving" / "kernels"


def _keep(path: Path, code: bytes) -> None:
    """Write it whole or not at all; where that fails, the next start compiles again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(code)
        os.replace(file.name, path)
    except OSError:
        return
