# SPDX-License-Identifier: Apache-2.0
"""A real `pegaflow serve` of the build under test, on free loopback ports."""

import os
import pathlib
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("PEGAFLOW_BUILD", "build/release"))
PROGRAM = (BUILD if BUILD.is_absolute() else ROOT / BUILD) / "bin" / "pegaflow"
START_SECONDS = 30


class Server:
    """Starts at once. `port` stays the same over a restart."""

    def __init__(self, backends: str = "host", more: tuple = ()) -> None:
        self.backends = backends
        self.more = more
        self.port = 0
        self._start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _start(self) -> None:
        command = [PROGRAM, "serve", "--server-listen", f"127.0.0.1:{self.port}", "--admin-listen", "127.0.0.1:0"]
        command += ["--pool-size", "64mb", "--modules-backends", self.backends, "--server-drain-timeout", "2s", *self.more]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()  # "... serving: grpc port N admin port N", or nothing when it could not start
        assert "grpc port" in line, f"pegaflow serve did not start: {line!r}"
        self.port = int(line.split("grpc port ")[1].split()[0])

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.stop()
        self._start()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


def eventually(condition, seconds: float = 20) -> bool:
    """Whether `condition` comes true in time."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
