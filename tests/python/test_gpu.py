# SPDX-License-Identifier: Apache-2.0
"""GPU memory as serving engines hold it: torch tensors in process, and over the wire by wrapper and by plain description."""

import pickle
import subprocess
import sys

import pegaflow
import pytest

from servers import Server, eventually
from workers import hashes

torch = pytest.importorskip("torch", reason="needs torch")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

BLOCKS = 16
LAYERS = ["layer.0", "layer.1"]


def random_kv() -> dict:
    return {name: torch.randn(BLOCKS, 2, 64, 128, device="cuda", dtype=torch.bfloat16) for name in LAYERS}


@pytest.fixture
def gpu_server():
    running = Server("host,cuda")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def gpu_fabric():
    return pegaflow.Fabric()


@pytest.fixture
def gpu_engine(gpu_fabric):
    with pegaflow.Engine(gpu_fabric, pool_bytes=64 << 20) as running:
        yield running


def test_tensors_in_process(gpu_engine):
    kv = random_kv()
    want = {name: layer[:2].clone() for name, layer in kv.items()}
    gpu_engine.register_worker("replica", "model", kv, dtype="bfloat16")
    gpu_engine.save("replica", [(name, [0, 1], hashes(2)) for name in LAYERS])
    for layer in kv.values():
        layer.zero_()
    torch.cuda.synchronize()
    found = gpu_engine.query("replica", hashes(2), "request")
    gpu_engine.load("replica", [LAYERS], [(found.lease, [[9, 4]])], timeout=20)
    for name, layer in kv.items():
        assert torch.equal(layer[9], want[name][0]) and torch.equal(layer[4], want[name][1])
        assert not layer[[0, 1, 2, 3, 5]].any()


def test_a_save_waits_for_the_stream_that_writes(gpu_fabric, gpu_engine):
    kv = {"layer": torch.zeros(BLOCKS, 1 << 20, device="cuda", dtype=torch.uint8)}
    gpu_engine.register_worker("replica", "model", kv)
    torch.cuda.synchronize()
    stream, event = torch.cuda.Stream(), torch.cuda.Event()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(500_000_000)  # a quarter of a second of work before the write
        kv["layer"].fill_(9)
        event.record(stream)
    device = gpu_fabric.device("cuda:0")
    gpu_engine.save("replica", [("layer", [0], hashes(1))], wait_event=device.wrap_event(event.cuda_event))
    kv["layer"].zero_()
    torch.cuda.synchronize()
    found = gpu_engine.query("replica", hashes(1), "request")
    gpu_engine.load("replica", [["layer"]], [(found.lease, [[3]])])
    assert (kv["layer"][3] == 9).all()


def test_a_region_is_a_cuda_array(gpu_fabric):
    device = gpu_fabric.device("cuda:0")
    region, host = device.allocate(1 << 20), device.allocate(1 << 20, kind="host")
    tensor = torch.as_tensor(region, device="cuda")
    tensor.copy_(torch.arange(1 << 20, device="cuda") % 251)
    torch.cuda.synchronize()
    device.open_channel().write(region, host).wait(20)
    assert bytes(memoryview(host)[:300]) == bytes(i % 251 for i in range(300))


WRAPPED = """
import pickle, sys, torch, pegaflow
from pegaflow.ipc_wrapper import CudaIPCWrapper
torch.manual_seed(3)
kv = [torch.randn(16, 64, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
want = [layer[:2].clone() for layer in kv]
client = pegaflow.EngineRpcClient(sys.argv[1])
names, bytes_ = ["layer.0", "layer.1"], 64 * 128 * 2
print(client.register_context_batch("wrapped", "model", 0, 0, 1, 1, 0, names, [pickle.dumps(CudaIPCWrapper(t)) for t in kv],
                                    [16, 16], [bytes_, bytes_], [0, 0], [1, 1], "direct", False))
hashes = [b"%d" % i for i in range(2)]
event = torch.cuda.Event(interprocess=True)
event.record()
print(client.save("wrapped", 0, 0, 0, [(name, [0, 1], hashes) for name in names], wait_event=event.ipc_handle()))
for layer in kv:
    layer.zero_()
torch.cuda.synchronize()
found = client.query_prefetch("wrapped", hashes, "request")
state = pegaflow.PyLoadState()
client.load("wrapped", 0, 0, state.shm_name(), [names], [(found.lease, [[7, 8]])])
state.wait(20)
torch.cuda.synchronize()
print(all(torch.equal(layer[7:9], w) for layer, w in zip(kv, want)))
"""


def test_wrappers_over_the_wire(gpu_server):
    client = subprocess.run([sys.executable, "-c", WRAPPED, gpu_server.endpoint], capture_output=True, text=True, timeout=100)
    assert client.stdout.splitlines() == ["(True, '')", "(True, '')", "True"], client.stderr


def test_an_exported_region_over_the_wire(gpu_server, gpu_fabric):
    device = gpu_fabric.device("cuda:0")
    size = BLOCKS * 4096
    region = device.allocate(size, shared=True)
    tensor = torch.as_tensor(region, device="cuda").view(BLOCKS, 4096)
    tensor.copy_(torch.randint(0, 256, (BLOCKS, 4096), device="cuda", dtype=torch.uint8))
    torch.cuda.synchronize()
    memory = pegaflow.Memory.ipc(region.export(), device.info.uuid, size)
    with pegaflow.EngineRpcClient(gpu_server.endpoint) as client:
        client.register_worker("plain", "model", [pegaflow.Layer("layer", memory, BLOCKS, 4096)])
        client.save("plain", 0, 0, 0, [("layer", [1], hashes(1))])
        assert eventually(lambda: client.query_prefetch("plain", hashes(1), "request").num_hit_blocks == 1)
        found = client.query_prefetch("plain", hashes(1), "request")
        state = pegaflow.PyLoadState()
        client.load("plain", 0, 0, state.shm_name(), [["layer"]], [(found.lease, [[5]])])
        state.wait(20)
    assert torch.equal(tensor[5], tensor[1])


def test_the_wrapper_checks_its_tensor():
    from pegaflow.ipc_wrapper import CudaIPCWrapper

    with pytest.raises(ValueError, match="no CUDA handle"):
        CudaIPCWrapper(torch.zeros(4))
    with pytest.raises(ValueError, match="elements into its storage"):
        CudaIPCWrapper(torch.zeros(8, device="cuda")[4:])
    assert pickle.dumps(CudaIPCWrapper(torch.zeros(8, device="cuda")))
