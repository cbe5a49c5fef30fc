# SPDX-License-Identifier: Apache-2.0
import uuid

import pegaflow
import pytest

from servers import Server
from workers import Worker


@pytest.fixture
def server():
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def client(server):
    with pegaflow.EngineRpcClient(server.endpoint) as connected:
        yield connected


@pytest.fixture
def make_worker():
    """Makes workers whose shared memory goes with the test."""
    made = []

    def make(seed: int = 0) -> Worker:
        made.append(Worker(f"replica-{uuid.uuid4().hex[:8]}", seed))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def fabric():
    return pegaflow.Fabric(["host"])


@pytest.fixture
def engine(fabric):
    with pegaflow.Engine(fabric, pool_bytes=16 << 20) as running:
        yield running
