#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two serving processes share KV cache through `pegaflow serve`: one saves blocks, the other finds, loads and checks them.

    pegaflow serve --config examples/quickstart.toml &
    python examples/python/two_processes.py
"""

import argparse
import subprocess
import sys
import uuid
from multiprocessing import shared_memory

import numpy as np

import pegaflow

LAYERS, BLOCKS, BLOCK_BYTES = 8, 32, 64 << 10
NAMES = [f"layer.{i}" for i in range(LAYERS)]
HASHES = [f"prompt block {i}".encode().ljust(32) for i in range(BLOCKS)]  # a serving engine hashes tokens


class KvMemory:
    """KV memory of one process. On a GPU it would be a tensor; the server opens either."""

    def __init__(self) -> None:
        self.shm = shared_memory.SharedMemory(create=True, size=LAYERS * BLOCKS * BLOCK_BYTES)
        self.blocks = np.frombuffer(self.shm.buf, np.uint8).reshape(LAYERS, BLOCKS, BLOCK_BYTES)

    def layers(self) -> list[pegaflow.Layer]:
        size = BLOCKS * BLOCK_BYTES
        places = [pegaflow.Memory.shm(self.shm.name, size, i * size) for i in range(LAYERS)]
        return [pegaflow.Layer(name, place, BLOCKS, BLOCK_BYTES) for name, place in zip(NAMES, places)]

    def close(self) -> None:
        del self.blocks
        self.shm.close()
        self.shm.unlink()


def content() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (LAYERS, BLOCKS, BLOCK_BYTES), np.uint8)


def join(client: pegaflow.EngineRpcClient, kv: KvMemory) -> str:
    instance = f"example-{uuid.uuid4().hex[:8]}"
    client.start_session_watcher(instance, "two-processes", 1, 1)  # when this process dies, the server frees what it held
    client.register_worker(instance, "two-processes", kv.layers())
    return instance


def write(client: pegaflow.EngineRpcClient, kv: KvMemory) -> None:
    kv.blocks[:] = content()
    instance = join(client, kv)
    client.save(instance, 0, 0, 0, [(name, range(BLOCKS), HASHES) for name in NAMES])
    print(f"saved   {BLOCKS} blocks of {LAYERS} layers, {kv.blocks.nbytes >> 20} MiB")


def read(client: pegaflow.EngineRpcClient, kv: KvMemory) -> None:
    instance = join(client, kv)
    found = client.query_prefetch(instance, HASHES, "request-1")
    print(f"found   {found.num_hit_blocks} of {len(HASHES)} blocks")
    state = pegaflow.PyLoadState()
    places = list(reversed(range(BLOCKS)))  # anywhere
    client.load(instance, 0, 0, state.shm_name(), [NAMES], [(found.lease, [places])])
    state.wait(timeout=60)
    right = np.array_equal(kv.blocks[:, places], content())
    print(f"loaded  {kv.blocks.nbytes >> 20} MiB: {'every byte is right' if right else 'WRONG'}")
    if not right:
        sys.exit(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", default="http://127.0.0.1:50055", help="the server")
    parser.add_argument("--read", action="store_true", help="be the second process")
    arguments = parser.parse_args()
    kv = KvMemory()
    try:
        with pegaflow.EngineRpcClient(arguments.endpoint) as client:
            read(client, kv) if arguments.read else write(client, kv)
    finally:
        kv.close()
    if not arguments.read:
        sys.stdout.flush()
        sys.exit(subprocess.run([sys.executable, __file__, "--endpoint", arguments.endpoint, "--read"]).returncode)


if __name__ == "__main__":
    main()
