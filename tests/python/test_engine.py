# SPDX-License-Identifier: Apache-2.0
"""The engine in process: bytes go in and come back, in all shapes in which Python holds them."""

import numpy as np
import pegaflow
import pytest

from workers import hashes


def random_kv(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def load_all(engine, instance: str, layers: list[str], names: list[bytes], ids: list[int]) -> None:
    found = engine.query(instance, names, "request")
    assert isinstance(found, pegaflow.QueryReady)
    assert found.num_hit_blocks == len(names)
    assert len(found.lease) == 16
    engine.load(instance, [layers], [(found.lease, [ids])], timeout=20)


def test_saves_and_loads_byte_for_byte(engine):
    kv = {f"layer.{i}": random_kv(8, 2, 1024, seed=i) for i in range(3)}
    want = {name: layer[:3].copy() for name, layer in kv.items()}
    engine.register_worker("replica", "model", kv)
    names = hashes(3)
    saved = engine.save("replica", [(layer, [0, 1, 2], names) for layer in kv])
    assert (saved.saved_blocks, saved.duplicate_blocks) == (3, 0)
    assert saved.bytes == 9 * 2048
    again = engine.save("replica", [(layer, [0, 1, 2], names) for layer in kv])
    assert (again.saved_blocks, again.duplicate_blocks, again.bytes) == (0, 3, 0)
    for layer in kv.values():
        layer[:] = 0xEE
    load_all(engine, "replica", list(kv), names, [7, 5, 3])
    for name, layer in kv.items():
        for source, target in enumerate([7, 5, 3]):
            np.testing.assert_array_equal(layer[target], want[name][source])
        assert (layer[[0, 1, 2, 4, 6]] == 0xEE).all(), "nothing else was written"


def test_a_load_leaves_out_what_has_no_destination(engine):
    kv = random_kv(6, 512)
    want = kv[:3].copy()
    engine.register_worker("replica", "model", {"layer": kv})
    engine.save("replica", [("layer", [0, 1, 2], hashes(3))])
    kv[:] = 0
    load_all(engine, "replica", ["layer"], hashes(3), [5, None, 4])
    np.testing.assert_array_equal(kv[5], want[0])
    np.testing.assert_array_equal(kv[4], want[2])
    assert not kv[:4].any()


def test_k_and_v_first_and_gaps_between_blocks(engine):
    split = random_kv(2, 8, 1024)  # K of all blocks, then V
    room = random_kv(8, 3, 1024)
    spaced = room[:, 1]  # blocks of 1 KiB, 3 KiB apart
    layers = [pegaflow.Layer.from_array("split", split, kv_first=True), pegaflow.Layer.from_array("spaced", spaced)]
    assert (layers[0].segments, layers[0].kv_stride_bytes, layers[0].num_blocks) == (2, 8 * 1024, 8)
    assert (layers[1].block_stride_bytes, layers[1].bytes_per_block) == (3072, 1024)
    engine.register_worker("replica", "model", layers)
    want, untouched = (split[:, 2].copy(), spaced[2].copy()), room[:, [0, 2]].copy()
    engine.save("replica", [("split", [2], hashes(1)), ("spaced", [2], hashes(1))])
    split[:], spaced[:] = 0, 0
    load_all(engine, "replica", ["split", "spaced"], hashes(1), [6])
    np.testing.assert_array_equal(split[:, 6], want[0])
    np.testing.assert_array_equal(spaced[6], want[1])
    np.testing.assert_array_equal(room[:, [0, 2]], untouched)


def test_two_ranks_fill_a_block_together(engine):
    ranks = [random_kv(4, 256, seed=rank) for rank in range(2)]
    for rank, kv in enumerate(ranks):
        engine.register_worker(
            "replica", "model", {"layer": kv}, tp_rank=rank, tp_size=2, world_size=2, device_id=rank
        )
    (instance,) = engine.instances()
    assert instance.sealed
    assert [worker.tp_rank for worker in instance.workers] == [0, 1]
    engine.save("replica", [("layer", [0], hashes(1))], tp_rank=0, device_id=0)
    engine.flush()
    assert not engine.contains("replica", hashes(1)[0]), "half a block is no hit"
    engine.save("replica", [("layer", [0], hashes(1))], tp_rank=1, device_id=1)
    engine.flush()
    assert engine.contains("replica", hashes(1)[0])
    found = engine.query("replica", hashes(1), "request")
    for rank, kv in enumerate(ranks):
        want = kv[0].copy()
        engine.load("replica", [["layer"]], [(found.lease, [[3]])], tp_rank=rank, device_id=rank)
        np.testing.assert_array_equal(kv[3], want)


def test_page_first(engine):
    kv = {f"layer.{i}": random_kv(4, 512, seed=i) for i in range(4)}
    want = {name: layer[1].copy() for name, layer in kv.items()}
    engine.register_worker("replica", "model", kv, page_first=True)
    engine.save("replica", [(layer, [1], hashes(1)) for layer in kv])
    load_all(engine, "replica", list(kv), hashes(1), [2])
    for name, layer in kv.items():
        np.testing.assert_array_equal(layer[2], want[name])


def test_storage_groups_are_asked_apart(engine):
    full, window = random_kv(4, 128), random_kv(4, 64)
    layers = [
        pegaflow.Layer.from_array("full", full),
        pegaflow.Layer.from_array("window", window, storage_group=1),
    ]
    engine.register_worker("replica", "model", layers)
    engine.save("replica", [("full", [0, 1, 2], hashes(3)), ("window", [2], hashes(3)[2:])])
    engine.flush()
    assert engine.query("replica", hashes(3), "r").num_hit_blocks == 3
    group = engine.query("replica", hashes(3), "r:g1", group_id=1)
    assert group.hit_positions == [2]
    assert engine.contains("replica", hashes(3)[2], group_id=1)
    assert not engine.contains("replica", hashes(3)[0], group_id=1)


def test_a_load_reports_its_layers(engine):
    kv = {f"layer.{i:02}": random_kv(4, 4096, seed=i) for i in range(12)}
    want = {name: layer[0].copy() for name, layer in kv.items()}
    engine.register_worker("replica", "model", kv)
    engine.save("replica", [(layer, [0], hashes(1)) for layer in kv])
    found = engine.query("replica", hashes(1), "request")
    load = engine.load_async("replica", [list(kv)], [(found.lease, [[1]])])
    for i, (name, layer) in enumerate(kv.items()):
        assert load.wait_layers(i + 1, timeout=20)
        np.testing.assert_array_equal(layer[1], want[name])
    load.wait(timeout=20)
    assert load.done()
    assert load.landed_layers == len(kv)
    load.cancel()  # over: no error


def test_leases(engine):
    kv = random_kv(4, 128)
    engine.register_worker("replica", "model", {"layer": kv})
    engine.save("replica", [("layer", [0], hashes(1))])
    found = engine.query("replica", hashes(1), "request", lease_time=30)
    engine.renew(found.lease)
    engine.renew(found.lease, 60)
    assert engine.stats()["leases"] == 1
    engine.release(found.lease)
    assert engine.stats()["leases"] == 0
    with pytest.raises(pegaflow.NotFound, match="query lease is unknown or expired"):
        engine.release(found.lease)
    assert engine.query("replica", [], "request").lease == b""
    missed = engine.query("replica", hashes(1, "other"), "request")
    assert (missed.num_hit_blocks, missed.lease) == (0, b"")


def test_cleanup_and_end(fabric):
    engine = pegaflow.Engine(fabric, pool_bytes=16 << 20)
    kv = random_kv(4, 1024)
    engine.register_worker("replica", "model", {"layer": kv})
    engine.save("replica", [("layer", [0, 1], hashes(2))])
    engine.flush()
    assert engine.stats()["resident_blocks"] == 2
    dropped = engine.cleanup_memory()
    assert dropped.evicted_blocks == 2
    assert dropped.evicted_bytes == dropped.reclaimed_bytes >= 2048
    assert engine.stats()["resident_blocks"] == 0
    engine.unregister_instance("replica")
    with pytest.raises(pegaflow.NotFound, match="instance replica not found"):
        engine.unregister_instance("replica")
    engine.close()
    engine.close()
    with pytest.raises(pegaflow.Canceled):
        engine.query("replica", hashes(1), "request")


def test_registered_arrays_stay_alive(engine):
    import gc
    import weakref

    kv = random_kv(4, 1024)
    alive = weakref.ref(kv)
    engine.register_worker("replica", "model", {"layer": kv})
    del kv
    gc.collect()
    assert alive() is not None
    engine.save("replica", [("layer", [0], hashes(1))])
    engine.unregister_instance("replica")
    gc.collect()
    assert alive() is None, "nothing of a gone instance is kept"


def test_a_small_pool_keeps_what_was_used_last(fabric):
    with pegaflow.Engine(fabric, pool_bytes=4 << 20) as engine:
        kv = random_kv(16, 512 << 10)
        engine.register_worker("replica", "model", {"layer": kv})
        for i in range(16):
            engine.save("replica", [("layer", [i], hashes(16)[i : i + 1])])
        engine.flush()
        assert engine.stats()["evictions"] > 0
        assert engine.contains("replica", hashes(16)[15])
        assert not engine.contains("replica", hashes(16)[0])


@pytest.mark.parametrize(
    ("options", "text"),
    [({"eviction_policy": "none-such"}, "none-such"), ({"lease_time": -1.0}, "seconds"), ({"pool_bytes": 0}, "pool")],
)
def test_options_are_checked(fabric, options, text):
    with pytest.raises((ValueError, pegaflow.PegaFlowError), match=text):
        pegaflow.Engine(fabric, **{"pool_bytes": 1 << 20, **options})
