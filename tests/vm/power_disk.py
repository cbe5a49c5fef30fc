#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A disk with a volatile write cache: an NBD server on a Unix socket over a raw image.

Writes stay in the cache until a flush, or go through it when they carry FUA. When the client vanishes without saying goodbye,
which is what a killed virtual machine does, the power is gone: of the writes still in the cache a random part has reached the
medium, whole, torn at a sector, or not at all. A client that disconnects in order leaves everything on the medium.

SIGUSR1 asks for a moment at which something can be lost: as soon as N writes are in the cache (half as many after each further signal),
the disk says "still" and answers nothing more, and the client is to be killed. It is the same to the client as a cut at that moment.

    power_disk.py IMAGE SOCKET [--seed N] [--keep P] [--writes N]
"""

import argparse
import os
import random
import signal
import socket
import struct

SECTOR = 512
OPTION_MAGIC = 0x49484156454F5054
REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
RESPONSE_MAGIC = 0x67446698
FLAGS = 1 | 4 | 8 | 32  # has flags, flush, FUA, trim
READ, WRITE, DISCONNECT, FLUSH, TRIM = 0, 1, 2, 3, 4
FUA = 1
EINVAL = 22


class Disk:
    """The image, what is in the cache over it, and how much of that survives."""

    def __init__(self, path, seed, keep):
        self.file = os.open(path, os.O_RDWR)
        self.size = os.fstat(self.file).st_size
        self.random = random.Random(seed)
        self.keep = keep
        self.sectors = {}  # number -> bytes: what reads see
        self.writes = []  # (offset, bytes) in order, since the last flush
        self.still_at = None  # so many writes in the cache

    def read(self, offset, length):
        data = bytearray(os.pread(self.file, length, offset))
        if self.sectors:
            for at in range(0, length, SECTOR):
                cached = self.sectors.get((offset + at) // SECTOR)
                if cached is not None:
                    data[at : at + SECTOR] = cached
        return bytes(data)

    def write(self, offset, data, through):
        if through and not self.sectors:
            os.pwrite(self.file, data, offset)
            return
        for at in range(0, len(data), SECTOR):
            self.sectors[(offset + at) // SECTOR] = data[at : at + SECTOR]
        if through:
            # The medium has it now; what is in the cache below it is older, and must not come back over it.
            os.pwrite(self.file, data, offset)
            first, last = offset // SECTOR, (offset + len(data)) // SECTOR
            kept = []
            for start, older in self.writes:
                for at in range(0, len(older), SECTOR):
                    if not first <= (start + at) // SECTOR < last:
                        kept.append((start + at, older[at : at + SECTOR]))
            self.writes = kept
            for number in range(first, last):
                self.sectors.pop(number, None)
        else:
            self.writes.append((offset, data))

    def flush(self):
        for offset, data in self.writes:
            os.pwrite(self.file, data, offset)
        self.writes.clear()
        self.sectors.clear()

    def cut(self):
        """Power is gone."""
        kept = torn = 0
        for offset, data in self.writes:
            if self.random.random() >= self.keep:
                continue
            if len(data) > SECTOR and self.random.random() < 0.3:
                data = data[: self.random.randrange(1, len(data) // SECTOR) * SECTOR]
                torn += 1
            os.pwrite(self.file, data, offset)
            kept += 1
        print(f"power cut: {len(self.writes)} writes in the cache, {kept} reached the medium, {torn} of them torn, {len(self.writes) - kept} dropped",
              flush=True)
        self.writes.clear()
        self.sectors.clear()


class Connection:
    def __init__(self, peer, disk):
        self.peer = peer
        self.disk = disk
        self.buffer = bytearray()

    def take(self, count):
        while len(self.buffer) < count:
            more = self.peer.recv(1 << 20)
            if not more:
                raise EOFError
            self.buffer += more
        out = bytes(self.buffer[:count])
        del self.buffer[:count]
        return out

    def negotiate(self):
        self.peer.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTION_MAGIC, 3))
        (client,) = struct.unpack(">I", self.take(4))
        while True:
            _, option, length = struct.unpack(">QII", self.take(16))
            data = self.take(length)
            if option == 1:  # export name
                self.peer.sendall(struct.pack(">QH", self.disk.size, FLAGS) + (b"" if client & 2 else bytes(124)))
                return True
            if option == 2:  # abort
                self.reply(option, 1)
                return False
            if option in (6, 7):  # info, go
                self.reply(option, 3, struct.pack(">HQH", 0, self.disk.size, FLAGS))
                self.reply(option, 1)
                if option == 7:
                    return True
                continue
            self.reply(option, (1 << 31) + 1)  # unsupported
            del data

    def reply(self, option, kind, data=b""):
        self.peer.sendall(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(data)) + data)

    def respond(self, handle, error=0, data=b""):
        self.peer.sendall(struct.pack(">IIQ", RESPONSE_MAGIC, error, handle) + data)

    def serve(self):
        """True when the client said goodbye."""
        while True:
            magic, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", self.take(28))
            if magic != REQUEST_MAGIC:
                raise EOFError
            data = self.take(length) if kind == WRITE else b""
            if kind == DISCONNECT:
                return True
            if kind in (READ, WRITE) and (offset + length > self.disk.size or offset % SECTOR or length % SECTOR):
                self.respond(handle, EINVAL)
            elif kind == READ:
                self.respond(handle, 0, self.disk.read(offset, length))
            elif kind == WRITE:
                self.disk.write(offset, data, flags & FUA)
                if self.disk.still_at is not None and len(self.disk.writes) >= self.disk.still_at:
                    print("still", flush=True)
                    while True:  # until the client is gone
                        self.take(1)
                self.respond(handle)
            elif kind == FLUSH:
                self.disk.flush()
                self.respond(handle)
            elif kind == TRIM:
                self.respond(handle)
            else:
                self.respond(handle, EINVAL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("socket")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=float, default=0.5, help="probability that a cached write survives")
    parser.add_argument("--writes", type=int, default=1, help="in the cache, for the moment that SIGUSR1 asks for")
    arguments = parser.parse_args()
    disk = Disk(arguments.image, arguments.seed, arguments.keep)

    def wanted(*_):
        disk.still_at = arguments.writes if disk.still_at is None else max(1, disk.still_at // 2)

    signal.signal(signal.SIGUSR1, wanted)
    server = socket.socket(socket.AF_UNIX)
    server.bind(arguments.socket)
    server.listen(1)
    print("ready", flush=True)
    peer, _ = server.accept()
    connection = Connection(peer, disk)
    try:
        orderly = not connection.negotiate() or connection.serve()
    except (EOFError, ConnectionError):
        orderly = False
    if orderly:
        disk.flush()
    else:
        disk.cut()
    os.fsync(disk.file)
    os.unlink(arguments.socket)


if __name__ == "__main__":
    main()
