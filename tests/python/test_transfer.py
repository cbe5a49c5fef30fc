# SPDX-License-Identifier: Apache-2.0
"""Fabric, regions, channels and transfers: copies in one process and between two, marks, notifications, events, failures."""

import subprocess
import sys
import time

import numpy as np
import pegaflow
import pytest


@pytest.fixture
def device(fabric):
    return fabric.device("host:0")


@pytest.fixture
def slow_device():
    """Every batch ends a while after it is over."""
    return pegaflow.Fabric(["host"], wrap=[("fault", "host")], options={"fault": {"delay_us": "1500000"}}).device("host:0")


def numbers(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint32)


def test_what_is_loaded(fabric):
    (host,) = [module for module in fabric.modules if module.name == "host"]
    assert host.problem == ""
    assert host.devices[0].name == "host:0"
    device = fabric.device("host:0")
    assert device.info.kind == "host"
    assert device.capabilities["read"] and device.capabilities["write"]
    assert fabric.route("host:0").name == "host:0"
    with pytest.raises(pegaflow.NotFound, match='no device "host:9"; there are: host:0'):
        fabric.device("host:9")
    with pytest.raises(pegaflow.NotFound, match="nonsense"):
        pegaflow.Fabric(["nonsense"])
    with pytest.raises(ValueError, match='"tape" is not known; there are: host, gpu'):
        fabric.route("host:0", "tape")


def test_flat_ranges_in_both_directions(device):
    a, b = numbers(1024), np.zeros(1024, np.uint32)
    local, remote = device.register(a), device.register(b)
    with device.open_channel() as channel:
        assert channel.state == "open"
        assert channel.write(local, remote, [(0, 4000, 96), (400, 0, 40)]).wait(20) == 136
        np.testing.assert_array_equal(b[1000:], a[:24])
        np.testing.assert_array_equal(b[:10], a[100:110])
        b[:] = 9
        assert channel.read(local, remote).wait(20) == 4096
        assert (a == 9).all()
    with pytest.raises(pegaflow.Canceled, match="the channel is closed"):
        channel.write(local, remote)


def test_spans_share_indices_and_report_marks(device):
    layers = [numbers(8 * 256).reshape(8, 256) + 1000 * i for i in range(4)]
    pages = np.zeros((8, 4, 256), np.uint32)  # one page per block, all layers side by side
    page_region = device.register(pages)
    transfer = pegaflow.Transfer().write().indices([1, 3, 5], [0, 1, 2]).mark_every(1)
    for i, layer in enumerate(layers):
        transfer.span(device.register(layer), page_region, 1024, remote_base=1024 * i, remote_stride=4096)
    completion = device.open_channel().submit(transfer)
    assert completion.wait_spans(1, 20)
    assert completion.wait(20) == 3 * 4 * 1024
    assert completion.landed_spans == 4
    for i, layer in enumerate(layers):
        np.testing.assert_array_equal(pages[:3, i], layer[[1, 3, 5]])
    assert not pages[3:].any()


def test_segments(device):
    kv = numbers(2 * 8 * 64).reshape(2, 8, 64)
    host = np.zeros((8, 2, 64), np.uint32)
    transfer = pegaflow.Transfer().indices(range(8), range(8))
    transfer.span(
        device.register(kv), device.register(host), 256, segments=2, local_segment_stride=8 * 256, remote_stride=512,
        remote_segment_stride=256,
    )  # fmt: skip
    assert device.open_channel().submit(transfer).wait(20) == kv.nbytes
    np.testing.assert_array_equal(host, kv.transpose(1, 0, 2))


def test_a_transfer_is_used_again(device):
    a, b = numbers(64), np.zeros(64, np.uint32)
    channel, transfer = device.open_channel(), pegaflow.Transfer()
    for _ in range(3):
        transfer.clear().flat(device.register(a), device.register(b)).range(0, 0, 256)
        assert channel.submit(transfer).wait(20) == 256
        np.testing.assert_array_equal(a, b)
        a += 1


def test_a_transfer_in_flight_cannot_change(slow_device):
    a, b = numbers(64), np.zeros(64, np.uint32)
    transfer = pegaflow.Transfer().flat(slow_device.register(a), slow_device.register(b)).range(0, 0, 256)
    completion = slow_device.open_channel().submit(transfer)
    with pytest.raises(ValueError, match="in flight"):
        transfer.range(0, 0, 4)
    with pytest.raises(pegaflow.DeadlineExceeded, match="has not ended yet"):
        completion.wait(0.05)
    assert isinstance(pegaflow.DeadlineExceeded("x"), TimeoutError)
    assert not completion.done()
    assert completion.wait(20) == 256


def test_dropping_everything_waits_for_the_batch(slow_device):
    target = np.zeros(64, np.uint32)
    channel = slow_device.open_channel()
    start = time.monotonic()
    completion = channel.write(slow_device.register(numbers(64)), slow_device.register(target))
    del completion, channel
    assert time.monotonic() - start > 0.3, "memory is never released before the terminal completion"
    np.testing.assert_array_equal(target, numbers(64))


def test_failures_say_what_happened(device):
    region = device.allocate(4096)
    channel = device.open_channel()
    with pytest.raises(ValueError):
        channel.write(region, region, [(4000, 0, 200)])
    with pytest.raises(ValueError, match="the regions differ in length"):
        channel.write(region, device.allocate(8192))
    with pytest.raises(ValueError, match="local has 2 indices, remote 1"):
        pegaflow.Transfer().indices([1, 2], [1])
    with pytest.raises(ValueError, match=r"local\[1\]: -1 is not between 0"):
        pegaflow.Transfer().indices([1, -1], [1, 2])
    with pytest.raises(TypeError, match=r"remote\[0\]: expected an integer, got str"):
        pegaflow.Transfer().indices([1], ["1"])
    with pytest.raises(pegaflow.Corrupt):
        device.import_region(b"no descriptor")
    failing = pegaflow.Fabric(["host"], wrap=[("fault", "host")], options={"fault": {"fail": "1:PEER_LOST"}})
    broken = failing.device("host:0")
    completion = broken.open_channel().write(broken.allocate(64), broken.allocate(64))
    with pytest.raises(pegaflow.PeerLost, match="transfer ended as peer_lost") as caught:
        completion.wait(20)
    assert caught.value.code == "peer_lost"
    assert isinstance(caught.value, ConnectionError)
    assert not completion.wait_spans(1, 20)


def test_a_hung_batch_is_cancelled():
    fabric = pegaflow.Fabric(["host"], wrap=[("fault", "host")], options={"fault": {"hang": "1"}})
    device = fabric.device("host:0")
    completion = device.open_channel().write(device.allocate(64), device.allocate(64))
    with pytest.raises(TimeoutError):
        completion.wait(0.1)
    completion.cancel()
    with pytest.raises(pegaflow.Canceled):
        completion.wait(20)
    completion.cancel()  # over: no error


def test_a_transfer_times_out():
    fabric = pegaflow.Fabric(["host"], wrap=[("fault", "host")], options={"fault": {"hang": "1"}})
    device = fabric.device("host:0")
    transfer = pegaflow.Transfer().flat(device.allocate(64), device.allocate(64)).range(0, 0, 64).timeout(0.1)
    with pytest.raises(pegaflow.Canceled):
        device.open_channel().submit(transfer).wait(20)


def test_events_order_batches(device):
    a, b = numbers(64), np.zeros(64, np.uint32)
    before, after = device.create_event(), device.create_event()
    transfer = pegaflow.Transfer().flat(device.register(a), device.register(b)).range(0, 0, 256)
    completion = device.open_channel().submit(transfer.wait_event(before).record_event(after))
    with pytest.raises(TimeoutError):
        completion.wait(0.1)
    assert not after.query()
    a[:] = 5  # the source may still be written
    before.signal()
    completion.wait(20)
    assert after.query()
    assert (b == 5).all()


PEER = """
import sys, pegaflow
address, descriptor = (bytes.fromhex(text) for text in sys.argv[1:])
device = pegaflow.Fabric(["host"]).device("host:0")
region = device.import_region(descriptor)
mine = device.register(bytearray(b"from the other process".ljust(region.length, b".")))
channel = device.open_channel(address)
transfer = pegaflow.Transfer().flat(mine, region).range(0, 0, region.length).notify(77)
print(channel.submit(transfer).wait(20))
"""


def test_another_process_writes_and_notifies(device):
    region = device.allocate(4096, shared=True)
    with pytest.raises(pegaflow.DeadlineExceeded):
        device.wait_notify(77, timeout=0.05)
    arguments = [device.address().hex(), region.export().hex()]
    peer = subprocess.run([sys.executable, "-c", PEER, *arguments], capture_output=True, text=True, timeout=60)
    assert (peer.stdout, peer.stderr) == ("4096\n", "")
    device.wait_notify(77, timeout=20)
    assert bytes(memoryview(region)[:22]) == b"from the other process"
