# SPDX-License-Identifier: Apache-2.0
"""KV memory of a serving worker, in shared memory: what a GPU's memory is to a serving engine."""

from multiprocessing import shared_memory

import numpy as np
import pegaflow

BLOCKS = 16
BYTES = 4096
LAYERS = ("layer.0", "layer.1")


class Worker:
    """Two layers of 16 blocks of 4 KiB in one shared memory object."""

    def __init__(self, instance_id: str, seed: int = 0) -> None:
        self.instance_id = instance_id
        self.shm = shared_memory.SharedMemory(create=True, size=len(LAYERS) * BLOCKS * BYTES)
        self.kv = np.frombuffer(self.shm.buf, np.uint8).reshape(len(LAYERS), BLOCKS, BYTES)
        self.kv[:] = np.random.default_rng(seed).integers(0, 256, self.kv.shape, np.uint8)

    def layers(self) -> list[pegaflow.Layer]:
        size = BLOCKS * BYTES
        return [
            pegaflow.Layer(name, pegaflow.Memory.shm(self.shm.name, size, i * size), BLOCKS, BYTES)
            for i, name in enumerate(LAYERS)
        ]

    def register(self, client: pegaflow.EngineRpcClient, **more) -> tuple[bool, str]:
        return client.register_worker(self.instance_id, "tests", self.layers(), **more)

    def close(self) -> None:
        self.kv = None
        self.shm.close()
        self.shm.unlink()


def hashes(count: int, salt: str = "") -> list[bytes]:
    """Content hashes of blocks, as a serving engine makes them: 32 bytes."""
    return [f"{salt}:{i}".encode().ljust(32, b".") for i in range(count)]


def saves(ids: list[int], names: list[bytes]) -> list[tuple[str, list[int], list[bytes]]]:
    return [(layer, ids, names) for layer in LAYERS]
