# SPDX-License-Identifier: Apache-2.0
"""The client against a real server process, as a connector uses it."""

import pickle
import socket
import subprocess
import sys
import time
import types

import numpy as np
import pegaflow
import pytest
from pegaflow.ipc_wrapper import CudaIPCWrapper

from servers import Server, eventually
from workers import BLOCKS, BYTES, LAYERS, hashes, saves


def load(client, worker, lease: bytes, ids: list) -> pegaflow.PyLoadState:
    state = pegaflow.PyLoadState()
    assert client.load(worker.instance_id, 0, 0, state.shm_name(), [list(LAYERS)], [(lease, [ids])]) == (True, "")
    return state


def test_one_process_saves_another_loads(server, client, make_worker):
    writer, reader = make_worker(1), make_worker(2)
    assert client.endpoint() == server.endpoint
    assert client.health() == (True, pegaflow.__version__)
    assert writer.register(client) == (True, "")
    assert client.save(writer.instance_id, 0, 0, 0, saves([3, 4], hashes(2))) == (True, "")
    with pegaflow.EngineRpcClient(endpoint=server.endpoint) as other:
        reader.register(other)
        found = other.query_prefetch(instance_id=reader.instance_id, block_hashes=hashes(3), req_id="request")
        assert isinstance(found, pegaflow.QueryReady)
        assert found.num_hit_blocks == 2, "an equal layout in the same namespace shares"
        before = reader.kv.copy()
        state = load(other, reader, found.lease, [9, 10])
        state.wait(20)
        assert (state.get_state(), state.is_ready()) == (1, True)
        np.testing.assert_array_equal(reader.kv[:, 9:11], writer.kv[:, 3:5])
        before[:, 9:11] = writer.kv[:, 3:5]
        np.testing.assert_array_equal(reader.kv, before, "nothing else was written")
        assert other.unregister_context(reader.instance_id) == (True, "")


@pytest.fixture
def hanging_client(tmp_path):
    """Of a server whose first load never ends by itself."""
    config = tmp_path / "server.toml"
    config.write_text('[modules]\nwrap = ["fault=host"]\n[module.fault]\nhang = 1\nop = "read"\ntimes = 1\n')
    running = Server(more=("--config", str(config)))
    with pegaflow.EngineRpcClient(running.endpoint) as connected:
        yield connected
    running.stop()


@pytest.mark.parametrize("by", ["cancel", "timeout"])
def test_a_load_that_hangs_is_ended(hanging_client, make_worker, by):
    client, worker = hanging_client, make_worker(1)
    worker.register(client)
    client.save(worker.instance_id, 0, 0, 0, saves([3], hashes(1)))
    lease = client.query_prefetch(worker.instance_id, hashes(1), "request").lease
    before, state = worker.kv.copy(), pegaflow.PyLoadState()
    timeout = 2 if by == "timeout" else None
    client.load(worker.instance_id, 0, 0, state.shm_name(), [list(LAYERS)], [(lease, [[5]])], timeout=timeout)
    if by == "cancel":
        with pytest.raises(pegaflow.DeadlineExceeded):
            state.wait(0.05)
        assert client.cancel_load(worker.instance_id, state.shm_name()) == (True, "")
    with pytest.raises(pegaflow.PegaflowInternal):
        state.wait(20)
    assert state.get_state() < 0
    np.testing.assert_array_equal(worker.kv, before, "nothing was written")
    with pytest.raises(pegaflow.PegaFlowError, match="no load of"):
        client.cancel_load(worker.instance_id, state.shm_name())
    lease = client.query_prefetch(worker.instance_id, hashes(1), "request").lease
    load(client, worker, lease, [5]).wait(20)
    np.testing.assert_array_equal(worker.kv[:, 5], worker.kv[:, 3])


def test_a_lease_is_released_once(client, make_worker):
    worker = make_worker()
    worker.register(client)
    client.save(worker.instance_id, 0, 0, 0, saves([0], hashes(1)))
    found = client.query_prefetch(worker.instance_id, hashes(1), "request", False, 0, lease_time=60)
    client.release(found.lease)
    with pytest.raises(pegaflow.PegaFlowError, match="query lease is unknown or expired"):
        client.release(found.lease)
    nothing = client.query_prefetch(worker.instance_id, [], "request")
    assert (nothing.num_hit_blocks, nothing.lease, nothing.hit_positions) == (0, b"", [])


def test_load_state_is_shared_memory():
    state = pegaflow.PyLoadState()
    name = state.shm_name()
    assert name.startswith("pega_load_") and len(name) == 42
    with open(f"/dev/shm/{name}", "r+b") as file:
        layout = file.read()
        assert len(layout) == 32
        assert layout[:8] == (8).to_bytes(8, "little")
        assert layout[8:16] == (0x50464C44).to_bytes(4, "little") + (1).to_bytes(4, "little")
        assert (state.get_state(), state.is_ready()) == (0, False)
        with pytest.raises(TimeoutError):
            state.wait(0.05)
        file.seek(16)
        file.write((-1).to_bytes(8, "little", signed=True))
    assert (state.get_state(), state.is_ready()) == (-1, True)
    with pytest.raises(pegaflow.PegaflowInternal, match="the load failed"):
        state.wait(1)
    del state
    with pytest.raises(FileNotFoundError):
        open(f"/dev/shm/{name}", "rb")


def test_a_load_that_fails_says_so_twice(client, make_worker):
    worker = make_worker()
    worker.register(client)
    state = pegaflow.PyLoadState()
    with pytest.raises(pegaflow.PegaflowInternal, match="Load: .*query lease is unknown or expired.* \\[INTERNAL\\]"):
        client.load(worker.instance_id, 0, 0, state.shm_name(), [list(LAYERS)], [(b"x" * 16, [[0]])])
    assert state.get_state() == -1


def test_errors_have_the_classes_and_words_that_connectors_look_for(client, make_worker):
    worker = make_worker()
    with pytest.raises(pegaflow.PegaFlowError, match="Save: instance nobody not found \\[FAILED_PRECONDITION\\]"):
        client.save("nobody", 0, 0, 0, saves([0], hashes(1)))
    worker.register(client, tp_size=2, world_size=2)
    with pytest.raises(ValueError, match="registration incomplete: 1/2"):
        client.save(worker.instance_id, 0, 0, 0, saves([0], hashes(1)))
    with pytest.raises(ValueError, match="QueryPrefetch: .*req_id must not be empty \\[INVALID_ARGUMENT\\]") as caught:
        client.query_prefetch(worker.instance_id, hashes(1), "")
    assert not isinstance(caught.value, pegaflow.PegaFlowError)
    assert caught.value.code == "invalid"
    with pytest.raises(pegaflow.PegaFlowError, match="instance nobody not found"):
        client.unregister_context("nobody")
    with pytest.raises(ValueError, match="already exists"):
        worker.register(client, tp_size=2, world_size=2)
    assert issubclass(pegaflow.PegaflowInternal, pegaflow.PegaFlowError)


def test_arguments_are_checked_by_name(client, make_worker):
    worker = make_worker()
    worker.register(client)
    instance = worker.instance_id
    with pytest.raises(ValueError, match=r"saves\[0\]: block ids\[1\]: -1 is not between 0 and"):
        client.save(instance, 0, 0, 0, [("layer.0", [0, -1], hashes(2))])
    with pytest.raises(TypeError, match=r"saves\[1\]: block hashes\[0\]: expected bytes, got str"):
        client.save(instance, 0, 0, 0, [("layer.0", [], []), ("layer.1", [0], ["hash"])])
    with pytest.raises(TypeError, match=r"saves\[0\]: expected a tuple of layer name, block ids and block hashes, got 2"):
        client.save(instance, 0, 0, 0, [("layer.0", [0])])
    with pytest.raises(ValueError, match="query lease id must be 16 bytes, got 3"):
        client.release(b"abc")
    with pytest.raises(ValueError, match="query lease id must be non-empty"):
        client.release(b"")
    with pytest.raises(ValueError, match="block_ids length|does not match"):
        client.save(instance, 0, 0, 0, [("layer.0", [0, 1], hashes(1))])
    with pytest.raises(ValueError, match='"direct" or "kernel", got "magic"'):
        worker.register(client, transfer_backend="magic")
    kv = np.zeros((BLOCKS, BYTES), np.uint8)
    with pytest.raises(ValueError, match="not an address of this process"):
        client.register_worker("mine", "tests", {"layer": kv})


def make_wrapper(handle: bytes) -> bytes:
    """What CudaIPCWrapper(tensor) pickles to, made where there is no GPU: the fields that it takes from a tensor."""
    torch = types.ModuleType("torch")

    class Size(tuple):
        def __reduce__(self):
            return (Size, (tuple(self),))

    class DType:
        def __reduce__(self):
            return "bfloat16"

    for cls in (Size, DType):
        cls.__module__, cls.__qualname__ = "torch", cls.__name__
    torch.Size, torch.bfloat16 = Size, DType()
    torch.bfloat16.__module__ = "torch"
    sys.modules["torch"] = torch
    try:
        wrapper = CudaIPCWrapper.__new__(CudaIPCWrapper)
        wrapper.handle = (0, handle, 1 << 20, 0, b"/counter", 0, bytes(64), True)
        wrapper.dtype, wrapper.shape, wrapper.stride = torch.bfloat16, Size((16, 128)), (128, 1)
        wrapper.storage_offset, wrapper.device_uuid = 0, "01234567-89ab-cdef-0123-456789abcdef"
        return pickle.dumps(wrapper)
    finally:
        del sys.modules["torch"]


def register_batch(client, wrapper: bytes, **changes):
    arguments = {
        "instance_id": "gpu", "namespace": "tests", "tp_rank": 0, "pp_rank": 0, "tp_size": 1, "world_size": 1,
        "device_id": 0, "layer_names": ["layer.0"], "wrapper_bytes_list": [wrapper], "num_blocks_list": [16],
        "bytes_per_block_list": [256], "kv_stride_bytes_list": [0], "segments_list": [1], "transfer_backend": "kernel",
        "page_first": False, "layer_group_ids": None,
    }  # fmt: skip
    return client.register_context_batch(**{**arguments, **changes})


def test_wrappers_of_existing_connectors_are_read_by_the_server(client):
    with pytest.raises(pegaflow.PegaFlowError, match="no device has the UUID .01234567-89ab-cdef-0123-456789abcdef"):
        register_batch(client, make_wrapper(bytes(range(64))))
    with pytest.raises(ValueError, match="expandable_segments:False"):
        register_batch(client, make_wrapper(b"\x01e" + bytes(128)))
    with pytest.raises(ValueError, match="not a usable CudaIPCWrapper"):
        register_batch(client, pickle.dumps({"handle": b""}))
    with pytest.raises(ValueError, match=r"same non-zero length \(got layer_names=1\)"):
        register_batch(client, make_wrapper(bytes(64)), num_blocks_list=[])
    with pytest.raises(ValueError, match="transfer_backend"):
        register_batch(client, make_wrapper(bytes(64)), transfer_backend="auto")


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(pegaflow.PeerLost, match="is `pegaflow serve` running") as caught:
            pegaflow.EngineRpcClient(endpoint, connect_timeout=0.5)
        assert 0.4 < time.monotonic() - start < 5
    assert isinstance(caught.value, (pegaflow.PegaFlowError, ConnectionError))


def test_a_server_that_went_away(server, client, make_worker):
    worker = make_worker()
    worker.register(client)
    server.kill()
    missed = client.query_prefetch(worker.instance_id, hashes(1), "request")
    assert (missed.num_hit_blocks, missed.lease, missed.hit_positions) == (0, b"", [])
    with pytest.raises(pegaflow.PeerLost, match="Save: .* \\[UNAVAILABLE\\]"):
        client.save(worker.instance_id, 0, 0, 0, saves([0], hashes(1)))
    with pytest.raises(pegaflow.PegaFlowError):
        client.health()


def test_a_server_that_does_not_answer(server, make_worker):
    worker = make_worker()
    with pegaflow.EngineRpcClient(server.endpoint, call_timeout=3, reconnect=False) as client:
        worker.register(client)
        server.pause()
        try:
            with pytest.raises(pegaflow.DeadlineExceeded) as caught:
                client.save(worker.instance_id, 0, 0, 0, saves([0], hashes(1)), timeout=0.2)
            assert isinstance(caught.value, TimeoutError)
            missed = client.query_prefetch(worker.instance_id, hashes(1), "request")
            assert (missed.num_hit_blocks, missed.lease) == (0, b"")
        finally:
            server.resume()
        assert eventually(lambda: client.health()[0])


@pytest.mark.parametrize("with_session", [True, False])
def test_a_client_registers_again_after_a_restart(server, client, make_worker, with_session):
    worker = make_worker()
    if with_session:
        client.start_session_watcher(worker.instance_id, "tests", 1, 1)
    worker.register(client)
    server.restart()

    def saves_again() -> bool:
        try:
            return client.save(worker.instance_id, 0, 0, 0, saves([0], hashes(1)))[0]
        except (pegaflow.PegaFlowError, ValueError):  # away, unknown there, or not yet complete
            return False

    assert eventually(saves_again)
    assert client.query_prefetch(worker.instance_id, hashes(1), "request").num_hit_blocks == 1


SESSION = """
import sys, pegaflow
client = pegaflow.EngineRpcClient(sys.argv[1])
client.start_session_watcher(sys.argv[2], "tests", 1, 1)
print("open", flush=True)
sys.stdin.read()
"""


def test_the_death_of_a_process_frees_its_instance(server, client, make_worker):
    worker = make_worker()
    command = [sys.executable, "-c", SESSION, server.endpoint, worker.instance_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "open\n"
        worker.register(client)
        assert client.save(worker.instance_id, 0, 0, 0, saves([0], hashes(1)))[0]
        holder.kill()

    def gone() -> bool:
        try:
            client.query_prefetch(worker.instance_id, hashes(1), "request")
        except pegaflow.PegaFlowError as error:
            return "not found" in str(error)
        return False

    assert eventually(gone)


def test_a_session_is_checked_and_replaced(client, make_worker):
    worker = make_worker()
    with pytest.raises(ValueError, match="instance_id must not be empty"):
        client.start_session_watcher("", "tests", 1, 1)
    client.start_session_watcher(worker.instance_id, "tests", 1, 1)
    worker.register(client)
    client.start_session_watcher(worker.instance_id, "tests", 1, 1)
    time.sleep(0.2)
    assert client.save(worker.instance_id, 0, 0, 0, saves([0], hashes(1)))[0]


def test_shutdown_and_close(server, client):
    assert client.shutdown() == (True, "")
    assert server.process.wait(30) == 0
    client.close()
    client.close()
    with pytest.raises(pegaflow.Canceled, match="the client is closed"):
        client.health()


def test_the_old_import_paths():
    from pegaflow.pegaflow import EngineRpcClient, PegaFlowError, PyLoadState

    assert EngineRpcClient is pegaflow.EngineRpcClient
    assert PyLoadState is pegaflow.PyLoadState
    assert PegaFlowError is pegaflow.PegaFlowError


BOTH = """
import sys
order, endpoint = sys.argv[1:]
if order == "grpc first":
    import grpc
import pegaflow
import grpc
channel = grpc.insecure_channel(endpoint.removeprefix("http://"))
plain = channel.unary_unary("/pegaflow.Engine/Health")(b"", timeout=10)
with pegaflow.EngineRpcClient(endpoint) as client:
    version = client.health()[1]
    assert version.encode() in plain, plain
    plain = channel.unary_unary("/pegaflow.Engine/Health")(b"", timeout=10)
print(version)
"""


@pytest.mark.parametrize("order", ["grpc first", "pegaflow first"])
def test_another_grpc_in_the_same_process(server, order):
    both = subprocess.run([sys.executable, "-c", BOTH, order, server.endpoint], capture_output=True, text=True, timeout=60)
    assert (both.stdout.strip(), both.returncode) == (pegaflow.__version__, 0), both.stderr
