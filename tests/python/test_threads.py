# SPDX-License-Identifier: Apache-2.0
"""Every wait lets other threads run; threads share clients, engines and channels; Ctrl-C ends a wait."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pegaflow
import pytest

from workers import LAYERS, hashes, saves

WAIT = 0.5  # seconds


class Counter:
    """Counts on another thread while a call waits: in steps of a millisecond, which a held lock would stop."""

    def __enter__(self):
        self.steps = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        self.started = time.monotonic()
        return self

    def run(self) -> None:
        while not self.stop.wait(0.001):
            self.steps += 1

    def __exit__(self, *_) -> None:
        self.seconds = time.monotonic() - self.started
        self.stop.set()
        self.thread.join()

    def ran(self) -> bool:
        """It made a good part of the steps that fit into the wait."""
        return self.seconds > WAIT / 2 and self.steps > self.seconds * 100


def slow_device():
    """Batches end half a second late."""
    options = {"fault": {"delay_us": str(int(WAIT * 1e6))}}
    return pegaflow.Fabric(["host"], wrap=[("fault", "host")], options=options)


def test_a_completion_is_waited_for_without_the_lock():
    device = slow_device().device("host:0")
    channel = device.open_channel()
    completion = channel.write(device.allocate(4096), device.allocate(4096))
    with Counter() as counter:
        completion.wait(20)
    assert counter.ran(), counter.__dict__


def test_engine_calls_run_without_the_lock():
    with pegaflow.Engine(slow_device(), pool_bytes=1 << 20) as engine:
        kv = np.ones((4, 512), np.uint8)
        engine.register_worker("replica", "model", {"layer": kv})
        with Counter() as counter:
            engine.save("replica", [("layer", [0], hashes(1))])
        assert counter.ran(), counter.__dict__
        found = engine.query("replica", hashes(1), "request")
        with Counter() as counter:
            engine.load("replica", [["layer"]], [(found.lease, [[1]])])
        assert counter.ran(), counter.__dict__


def test_a_save_over_the_wire_waits_for_an_event_without_the_lock(fabric, client, make_worker):
    worker = make_worker()
    worker.register(client)
    device = fabric.device("host:0")
    event = device.create_event(shared=True)
    answers = []
    with Counter() as counter:
        call = threading.Thread(
            target=lambda: answers.append(
                client.save(worker.instance_id, 0, 0, 0, saves([0], hashes(1)), wait_event=event.export())
            )
        )
        call.start()
        time.sleep(WAIT)
        assert answers == [], "the source is not read before the event"
        worker.kv[:, 0] = 42
        event.signal()
        call.join(20)
    assert answers == [(True, "")]
    assert counter.ran(), counter.__dict__
    found = client.query_prefetch(worker.instance_id, hashes(1), "request")
    state = pegaflow.PyLoadState()
    client.load(worker.instance_id, 0, 0, state.shm_name(), [list(LAYERS)], [(found.lease, [[7]])])
    state.wait(20)
    assert (worker.kv[:, 7] == 42).all()


def test_connecting_and_load_states_wait_without_the_lock():
    with Counter() as counter, pytest.raises(pegaflow.DeadlineExceeded):
        pegaflow.PyLoadState().wait(WAIT)
    assert counter.ran(), counter.__dict__
    with socket.create_server(("127.0.0.1", 0)) as silent, Counter() as counter:
        with pytest.raises(pegaflow.PeerLost):
            pegaflow.EngineRpcClient(f"127.0.0.1:{silent.getsockname()[1]}", connect_timeout=WAIT)
    assert counter.ran(), counter.__dict__


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_threads_share_a_client(client, make_worker):
    worker = make_worker()
    worker.register(client)
    want = worker.kv.copy()
    wrong = []

    def use(i: int) -> None:
        for turn in range(10):
            names = hashes(1, f"{i}.{turn}")
            client.save(worker.instance_id, 0, 0, 0, saves([i], names))
            found = client.query_prefetch(worker.instance_id, names, f"{i}")
            state = pegaflow.PyLoadState()
            client.load(worker.instance_id, 0, 0, state.shm_name(), [list(LAYERS)], [(found.lease, [[8 + i]])])
            state.wait(20)
            if not (worker.kv[:, 8 + i] == want[:, i]).all():
                wrong.append((i, turn))

    run_all([threading.Thread(target=use, args=(i,)) for i in range(8)])
    assert wrong == []


def test_threads_share_a_channel(fabric):
    device = fabric.device("host:0")
    channel = device.open_channel(queue_depth=2)
    wrong = []

    def use(i: int) -> None:
        a, b = np.full(4096, i, np.uint8), np.zeros(4096, np.uint8)
        source, target = device.register(a), device.register(b)
        for _ in range(50):
            b[:] = 0xFF
            channel.write(source, target).wait(20)
            if not (b == i).all():
                wrong.append(i)

    run_all([threading.Thread(target=use, args=(i,)) for i in range(8)])
    assert wrong == []


WAITS_FOREVER = """
import signal

import pegaflow

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
print("waiting", flush=True)
pegaflow.PyLoadState().wait()
"""


def test_ctrl_c_ends_a_wait():
    command = [sys.executable, "-c", WAITS_FOREVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout.readline() == "waiting\n"
        time.sleep(0.2)
        os.kill(waiting.pid, signal.SIGINT)
        _, errors = waiting.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert waiting.returncode != 0


LEAVES_ALL_OPEN = """
import numpy, pegaflow
fabric = pegaflow.Fabric(["host"])
engine = pegaflow.Engine(fabric, pool_bytes=1 << 20)
engine.register_worker("replica", "model", {"layer": numpy.zeros((4, 512), numpy.uint8)})
device = fabric.device("host:0")
channel, region = device.open_channel(), device.allocate(4096)
completion = channel.write(region, device.allocate(4096))
"""


def test_a_program_ends_with_everything_open():
    ended = subprocess.run([sys.executable, "-c", LEAVES_ALL_OPEN], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
