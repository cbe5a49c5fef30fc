# SPDX-License-Identifier: Apache-2.0
"""Memory of anyone's: buffer protocol, DLPack, the CUDA array interface; and what is refused, in words."""

import array
import mmap
import subprocess
import sys

import numpy as np
import pegaflow
import pytest

from workers import hashes


class OnlyDLPack:
    """An array that shows nothing but DLPack, as a tensor of bfloat16 does."""

    def __init__(self, inner: np.ndarray, versioned: bool) -> None:
        self.inner = inner
        self.versioned = versioned

    def __dlpack__(self, **options):
        if not self.versioned and options:
            raise TypeError("this producer is older than max_version")
        return self.inner.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.inner.__dlpack_device__()


class OnlyCuda:
    def __init__(self, **description) -> None:
        self.__cuda_array_interface__ = {"version": 3, "typestr": "<f2", "strides": None, **description}


@pytest.mark.parametrize("versioned", [True, False])
def test_dlpack_memory_is_moved(engine, versioned):
    inner = np.random.default_rng(3).random((8, 64), np.float32)
    want = inner[0].copy()
    engine.register_worker("replica", "model", {"layer": OnlyDLPack(inner, versioned)})
    engine.save("replica", [("layer", [0], hashes(1))])
    found = engine.query("replica", hashes(1), "request")
    engine.load("replica", [["layer"]], [(found.lease, [[5]])])
    np.testing.assert_array_equal(inner[5], want)


def test_dlpack_keeps_its_strides():
    inner = np.zeros((8, 4, 64), np.float16)
    layer = pegaflow.Layer.from_array("layer", OnlyDLPack(inner[:, 1], True))
    assert (layer.num_blocks, layer.bytes_per_block, layer.block_stride_bytes) == (8, 128, 512)


@pytest.mark.parametrize("make", [bytearray, lambda n: array.array("B", bytes(n)), lambda n: mmap.mmap(-1, n)])
def test_plain_buffers_are_moved(fabric, make):
    device = fabric.device("host:0")
    source, target = make(4096), make(4096)
    memoryview(source)[:4] = b"pega"
    channel = device.open_channel()
    assert channel.write(device.register(source), device.register(target)).wait(20) == 4096
    assert bytes(memoryview(target)[:4]) == b"pega"


def test_a_region_is_a_buffer(fabric):
    device = fabric.device("host:0")
    region = device.allocate(4096)
    assert (len(region), region.kind, region.device_name) == (4096, "host", "host:0")
    view = np.frombuffer(region, np.uint8)
    view[:] = 7
    other = np.zeros(4096, np.uint8)
    device.open_channel().write(region, device.register(other)).wait(20)
    assert (other == 7).all()
    assert not hasattr(region, "__cuda_array_interface__")
    with pytest.raises(TypeError, match="read-only"):
        memoryview(device.register(b"constant bytes", read_only=True))[0] = 1


def test_cuda_arrays_are_understood(engine):
    layer = pegaflow.Layer.from_array("layer", OnlyCuda(shape=(16, 128), data=(0x7F0000000000, False)))
    assert (layer.num_blocks, layer.bytes_per_block, layer.memory.kind) == (16, 256, "gpu")
    with pytest.raises(pegaflow.InvalidArgument, match="there are 0 GPUs"):
        engine.register_worker("replica", "model", [layer])


@pytest.mark.parametrize(
    ("wrong", "kind", "text"),
    [
        (object(), TypeError, "object is no array: it has neither the buffer protocol nor __dlpack__"),
        (b"constant", ValueError, "read-only"),
        (np.zeros((0, 4)), ValueError, "dimension 0 of the array has size 0"),
        (np.zeros((8, 4))[::-1], ValueError, "backward"),
        (np.zeros((8, 4)).T, ValueError, "side by side"),
        (OnlyCuda(shape=(4,), data=(0, False)), ValueError, "the array has no memory"),
        (OnlyCuda(shape=(4,), data=(64, False), typestr="<x"), ValueError, "typestr"),
    ],
)
def test_what_cannot_be_a_layer_is_refused(wrong, kind, text):
    with pytest.raises(kind, match=text):
        pegaflow.Layer.from_array("layer", wrong)


def test_gaps_make_no_region(fabric):
    with pytest.raises(ValueError, match="stride of 8 bytes, expected 4"):
        fabric.device("host:0").register(np.zeros((16,), np.float32)[::2])


def test_importing_pegaflow_imports_no_array_library():
    code = "import sys, pegaflow, pegaflow.ipc_wrapper; print([m for m in ('numpy', 'torch', 'cupy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
