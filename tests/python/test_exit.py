# SPDX-License-Identifier: Apache-2.0
"""How a program ends while threads of it are inside the package."""

import subprocess
import sys

import pytest

# A daemon thread that is in a call, or between calls, when the interpreter goes.
PROGRAM = """
import threading, time, numpy, pegaflow
kv = numpy.zeros((8, 4096), "uint8")
engine = pegaflow.Engine(pegaflow.Fabric(["host"]), pool_bytes=16 << 20)
engine.register_worker("i", "n", {{"layer": kv}})
device = pegaflow.Fabric(["host"]).device("host:0")
def work():
    number = 0
    while True:
        {call}
        number += 1
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
"""
CALLS = {
    "save": 'engine.save("i", [("layer", [number % 8], [b"%032d" % number])])',
    "wait": "device.wait_notify(7)",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_daemon_thread_does_not_abort_the_program(call):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(call=CALLS[call])], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
