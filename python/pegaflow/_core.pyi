# SPDX-License-Identifier: Apache-2.0
"""The native module. Times are seconds; ``None`` means no limit. Every call that waits lets other threads run.

Failures raise the classes of :mod:`pegaflow.errors`.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, SupportsIndex, final

from typing_extensions import Buffer, Self

__version__: str

class _DLPack(Protocol):
    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class _CudaArray(Protocol):
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

# Memory of anyone's: the buffer protocol, DLPack, or the CUDA array interface.
_Array = Buffer | _DLPack | _CudaArray
# One layer's blocks to save: its name, block ids, and one hash for each.
_Save = tuple[str, Iterable[SupportsIndex], Iterable[bytes]]
# One lease to load: for each layer group, a block id (or None: not wanted) for each leased block.
_LeaseLoad = tuple[bytes, Iterable[Iterable[SupportsIndex | None]]]
_Layers = Iterable[Layer] | Mapping[str, _Array]

class DeviceInfo:
    """A device that a loaded back end offers."""

    @property
    def name(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def kind(self) -> str:
        """"host", "gpu", "file" or "remote"."""
    @property
    def numa_node(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def uuid(self) -> str: ...
    @property
    def text(self) -> str: ...

class ModuleInfo:
    """A back end's or plug-in's file: usable when ``problem`` is empty."""

    @property
    def path(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def problem(self) -> str: ...
    @property
    def devices(self) -> list[DeviceInfo]: ...

class Fabric:
    """Loads back ends and opens their devices. Closes when the last object made from it goes."""

    def __init__(
        self,
        backends: Sequence[str] | None = None,
        *,
        search_path: Sequence[str] = [],
        wrap: Sequence[tuple[str, str]] = [],
        options: Mapping[str, Mapping[str, str]] = {},
    ) -> None:
        """``backends``: which to load; None = all that are found. ``wrap``: pairs of interposer and back end."""
    @property
    def modules(self) -> list[ModuleInfo]: ...
    @property
    def devices(self) -> list[DeviceInfo]: ...
    def device(self, name: str) -> Device:
        """Opens the device of this name ("host:0", "cuda:1"), or returns it when it is open."""
    def device_by_uuid(self, uuid: str) -> Device: ...
    def route(self, local_device: str, remote_kind: str = "host") -> Device:
        """The device that moves bytes between ``local_device``'s memory and memory of this kind."""

class Device:
    """An open device: registers regions, opens channels."""

    @property
    def info(self) -> DeviceInfo: ...
    @property
    def name(self) -> str: ...
    @property
    def capabilities(self) -> dict[str, Any]: ...
    def allocate(self, length: int, *, kind: str | None = None, shared: bool = False) -> Region:
        """Memory of the back end's; ``shared``: other processes may import what :meth:`Region.export` gives."""
    def register(self, array: _Array, *, read_only: bool = False) -> Region:
        """An array without gaps; it stays alive as long as the region."""
    def register_address(
        self, address: int, length: int, *, kind: str | None = None, read_only: bool = False
    ) -> Region:
        """Memory of this process, which the caller keeps until the region is gone."""
    def open_shm(self, name: str, length: int, offset: int = 0, *, read_only: bool = False) -> Region:
        """A POSIX shared memory object."""
    def import_region(self, descriptor: bytes) -> Region: ...
    def address(self) -> bytes:
        """What a peer passes to :meth:`open_channel` to reach this device."""
    def open_channel(self, address: bytes = b"", *, queue_depth: int = 0) -> Channel:
        """A channel to a peer's device, or to this one when ``address`` is empty."""
    def create_event(self, *, shared: bool = False) -> Event: ...
    def wrap_event(self, native: int) -> Event:
        """A native event of this process (CUDA: ``torch.cuda.Event.cuda_event``); it stays the caller's."""
    def import_event(self, exported: bytes) -> Event: ...
    def wait_notify(self, value: int, count: int = 1, timeout: float | None = None) -> None:
        """Waits until ``value`` has arrived ``count`` times, and takes them."""

class Event:
    """A point in a device's work, for batches, saves and loads to wait for."""

    def export(self) -> bytes: ...
    def signal(self, stream: int = 0) -> None:
        """Records it on a native stream, or sets it from the host when the device is the host."""
    def query(self) -> bool:
        """Whether it has happened."""

class Region:
    """Registered bytes. Host memory is a buffer: ``memoryview(region)``, ``numpy.frombuffer(region, ...)``."""

    @property
    def length(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def address(self) -> int: ...
    @property
    def device_name(self) -> str: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Of GPU memory only, as bytes."""
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...
    def export(self) -> bytes:
        """The bytes with which another process imports this region."""

class Transfer:
    """A batch: ranges between two regions (``flat``), or pages between any regions that share index arrays (``span``)."""

    def __init__(self) -> None: ...
    def clear(self) -> Self: ...
    def read(self) -> Self:
        """Remote to local."""
    def write(self) -> Self:
        """Local to remote: the default."""
    def flat(self, local: Region, remote: Region) -> Self: ...
    def range(self, local_offset: int, remote_offset: int, length: int) -> Self: ...
    def indices(self, local: Iterable[SupportsIndex], remote: Iterable[SupportsIndex]) -> Self: ...
    def span(
        self,
        local: Region,
        remote: Region,
        page_bytes: int,
        *,
        segments: int = 1,
        local_base: int = 0,
        local_stride: int | None = None,
        local_segment_stride: int = 0,
        remote_base: int = 0,
        remote_stride: int | None = None,
        remote_segment_stride: int = 0,
    ) -> Self:
        """Moves, for every index i and segment s, ``page_bytes`` at base + i * stride + s * segment stride.

        A stride of None is ``page_bytes``.
        """
    def mark_every(self, spans: int) -> Self: ...
    def notify(self, value: int) -> Self:
        """Delivers ``value`` to the peer after the last byte."""
    def priority(self, priority: int) -> Self:
        """0 bulk, 1 normal, 2 urgent."""
    def timeout(self, seconds: float | None) -> Self:
        """From submit on; what has not started by then ends as canceled."""
    def wait_event(self, event: Event) -> Self: ...
    def record_event(self, event: Event) -> Self: ...

class Completion:
    """The one outcome of one batch. Holds the transfer and its regions: when it goes early, it waits for the batch."""

    def done(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> int:
        """Bytes moved, or the failure. DeadlineExceeded: the wait is over, the batch is not."""
    def wait_spans(self, spans: int, timeout: float | None = None) -> bool:
        """Waits until so many leading spans have landed. False: the batch failed, or the time is up."""
    @property
    def landed_spans(self) -> int: ...
    def cancel(self) -> None: ...

class Channel:
    """An open path from local regions to one target."""

    @property
    def state(self) -> str:
        """"open", "connecting", or how it broke."""
    def submit(self, transfer: Transfer, *, wait: bool = True) -> Completion:
        """``wait``: for room in the queue; else QueueFull."""
    def write(
        self, local: Region, remote: Region, ranges: Sequence[tuple[int, int, int]] | None = None
    ) -> Completion:
        """Copies local to remote: everything, or these (local offset, remote offset, length)."""
    def read(
        self, local: Region, remote: Region, ranges: Sequence[tuple[int, int, int]] | None = None
    ) -> Completion:
        """Copies remote to local."""
    def close(self, timeout: float | None = 10.0) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class Memory:
    """Where a layer's memory is."""

    @staticmethod
    def of(array: _Array) -> Memory:
        """An array of this process, in whatever order; in-process engines only."""
    @staticmethod
    def address(address: int, length: int, *, kind: str = "host", device_uuid: str = "") -> Memory: ...
    @staticmethod
    def shm(name: str, length: int, offset: int = 0) -> Memory:
        """A POSIX shared memory object, such as ``multiprocessing.shared_memory.SharedMemory(...).name``."""
    @staticmethod
    def ipc(handle: bytes, device_uuid: str, length: int, offset: int = 0) -> Memory:
        """GPU memory by a CUDA IPC handle, or by what :meth:`Region.export` gave."""
    @property
    def kind(self) -> str: ...
    @property
    def length(self) -> int: ...

class Layer:
    """One layer's KV memory on one worker: segment s of block b is at b * block_stride + s * kv_stride."""

    def __init__(
        self,
        name: str,
        memory: Memory | _Array,
        num_blocks: int,
        bytes_per_block: int,
        *,
        kv_stride_bytes: int = 0,
        segments: int = 1,
        block_stride_bytes: int = 0,
        storage_group: int = 0,
    ) -> None:
        """``bytes_per_block``: of one segment. ``block_stride_bytes`` 0: follows from the others."""
    @staticmethod
    def from_array(name: str, array: _Array, *, kv_first: bool = False, storage_group: int = 0) -> Layer:
        """From an array of shape (blocks, ...), or (2, blocks, ...) when ``kv_first``."""
    @property
    def name(self) -> str: ...
    @property
    def memory(self) -> Memory: ...
    @property
    def num_blocks(self) -> int: ...
    @property
    def bytes_per_block(self) -> int: ...
    @property
    def kv_stride_bytes(self) -> int: ...
    @property
    def segments(self) -> int: ...
    @property
    def block_stride_bytes(self) -> int: ...
    @property
    def storage_group(self) -> int: ...

class QueryLoading:
    """A slower tier is at work: ask again with the same ``req_id``."""

    def __init__(self) -> None: ...

class QueryReady:
    """What was found. ``lease`` pins it and is empty when nothing was."""

    def __init__(self, num_hit_blocks: int, lease: bytes, hit_positions: Sequence[int] = []) -> None: ...
    @property
    def num_hit_blocks(self) -> int: ...
    @property
    def lease(self) -> bytes: ...
    @property
    def hit_positions(self) -> list[int]:
        """Of a membership query (``group_id`` > 0): ascending positions."""

class SaveOutcome:
    @property
    def saved_blocks(self) -> int: ...
    @property
    def duplicate_blocks(self) -> int: ...
    @property
    def bytes(self) -> int: ...

class MemoryCleanup:
    @property
    def evicted_blocks(self) -> int: ...
    @property
    def evicted_bytes(self) -> int: ...
    @property
    def reclaimed_bytes(self) -> int: ...
    @property
    def still_referenced_blocks(self) -> int: ...

class WorkerInfo:
    @property
    def device_id(self) -> int: ...
    @property
    def tp_rank(self) -> int: ...
    @property
    def pp_rank(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def region_bytes(self) -> int: ...

class InstanceInfo:
    @property
    def instance_id(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def tp_size(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def page_first(self) -> bool: ...
    @property
    def sealed(self) -> bool: ...
    @property
    def layout_fingerprint(self) -> str: ...
    @property
    def workers(self) -> list[WorkerInfo]: ...

class Load:
    """A load under way."""

    def done(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> None:
        """Returns when every byte is there; raises the failure. DeadlineExceeded: the wait is over, the load is not."""
    def wait_layers(self, layers: int, timeout: float | None = None) -> bool:
        """Waits until so many leading layers, in the request's order, are there. False: failed, or the time is up."""
    @property
    def landed_layers(self) -> int: ...
    def cancel(self) -> None: ...

class Engine:
    """The cache engine in this process: keeps blocks in host memory, no server needed."""

    def __init__(
        self,
        fabric: Fabric | None = None,
        *,
        pool_bytes: int = 32212254720,
        block_bytes_hint: int = 0,
        hugepages: bool = False,
        pool_file: str = "",
        numa_affinity: bool = True,
        eviction_policy: str = "tiny_lfu",
        admission_policy: str = "none",
        lease_time: float = 600.0,
        incomplete_block_time: float = 300.0,
        max_queued_transfers: int = 1024,
        digests: bool = True,
        verify_on_load: bool = False,
    ) -> None:
        """``fabric`` None: opens one with every back end that is found."""
    def register_worker(
        self,
        instance_id: str,
        namespace: str,
        layers: _Layers,
        *,
        tp_rank: int = 0,
        tp_size: int = 1,
        pp_rank: int = 0,
        world_size: int = 1,
        device_id: int = 0,
        page_first: bool = False,
        dtype: str = "",
    ) -> None:
        """One worker of a serving replica; the last of ``world_size`` seals it. Arrays stay alive until it is unregistered.

        ``layers`` may be a mapping of names to arrays of shape (blocks, ...).
        """
    def unregister_instance(self, instance_id: str) -> None:
        """Waits for its copies; what it saved stays."""
    def instances(self) -> list[InstanceInfo]: ...
    def save(
        self,
        instance_id: str,
        saves: Iterable[_Save],
        *,
        tp_rank: int = 0,
        pp_rank: int = 0,
        device_id: int = 0,
        timeout: float | None = None,
        wait_event: Event | bytes | None = None,
    ) -> SaveOutcome:
        """Returns when the source may be reused. ``wait_event``: to wait for before it is read."""
    def query(
        self,
        instance_id: str,
        block_hashes: Iterable[bytes],
        req_id: str,
        wait_for_full_prefix: bool = False,
        group_id: int = 0,
        *,
        lease_time: float | None = None,
    ) -> QueryLoading | QueryReady:
        """The longest prefix that is there, leased."""
    def renew(self, lease: bytes, lease_time: float | None = None) -> None: ...
    def release(self, lease: bytes) -> None: ...
    def load(
        self,
        instance_id: str,
        layer_groups: Iterable[Iterable[str]],
        loads: Iterable[_LeaseLoad],
        *,
        tp_rank: int = 0,
        device_id: int = 0,
        timeout: float | None = None,
        wait_event: Event | bytes | None = None,
    ) -> None:
        """Copies leased blocks to their destinations and returns when every byte is there."""
    def load_async(
        self,
        instance_id: str,
        layer_groups: Iterable[Iterable[str]],
        loads: Iterable[_LeaseLoad],
        *,
        tp_rank: int = 0,
        device_id: int = 0,
        timeout: float | None = None,
        wait_event: Event | bytes | None = None,
    ) -> Load: ...
    def flush(self) -> None:
        """Waits until everything saved so far is visible to queries."""
    def cleanup_memory(self) -> MemoryCleanup:
        """Drops every resident block."""
    def contains(self, instance_id: str, block_hash: bytes, group_id: int = 0) -> bool: ...
    def stats(self) -> dict[str, int]: ...
    def close(self, timeout: float | None = None) -> None:
        """Refuses new work, waits for what runs, cancels it when the time is up."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class PyLoadState:
    """The object in shared memory in which a server reports a load's outcome. Keep it until the load has ended."""

    def __init__(self) -> None: ...
    def shm_name(self) -> str: ...
    def get_state(self) -> int:
        """0 pending, 1 success, negative: failed."""
    def is_ready(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> None:
        """Returns on success, raises on failure, DeadlineExceeded when the time is up."""

class EngineRpcClient:
    """A connection to ``pegaflow serve``. After a restart of the server it connects and registers again by itself.

    Bad arguments raise InvalidArgument (a ValueError), the server's own failures PegaflowInternal, all else PegaFlowError or
    one of its kind. Calls that return a pair of bool and str return (True, "") when they succeed.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        connect_timeout: float = 5.0,
        call_timeout: float = 30.0,
        reconnect: bool = True,
    ) -> None:
        """``endpoint`` None: http://127.0.0.1:50055. Raises PeerLost when nobody answers there in time."""
    def endpoint(self) -> str: ...
    def health(self) -> tuple[bool, str]:
        """(True, the server's version)."""
    def shutdown(self) -> tuple[bool, str]: ...
    def register_context_batch(
        self,
        instance_id: str,
        namespace: str,
        tp_rank: int,
        pp_rank: int,
        tp_size: int,
        world_size: int,
        device_id: int,
        layer_names: Sequence[str],
        wrapper_bytes_list: Sequence[bytes],
        num_blocks_list: Sequence[int],
        bytes_per_block_list: Sequence[int],
        kv_stride_bytes_list: Sequence[int],
        segments_list: Sequence[int],
        transfer_backend: str,
        page_first: bool,
        layer_group_ids: Sequence[int] | None = None,
    ) -> tuple[bool, str]:
        """Registers layers by pickled ``CudaIPCWrapper`` objects. ``transfer_backend``: "direct" or "kernel", a hint that is taken and not needed."""
    def register_worker(
        self,
        instance_id: str,
        namespace: str,
        layers: _Layers,
        *,
        tp_rank: int = 0,
        tp_size: int = 1,
        pp_rank: int = 0,
        world_size: int = 1,
        device_id: int = 0,
        page_first: bool = False,
        dtype: str = "",
        transfer_backend: str = "direct",
    ) -> tuple[bool, str]:
        """Registers layers by plain descriptions: ``Memory.shm`` or ``Memory.ipc``."""
    def unregister_context(self, instance_id: str) -> tuple[bool, str]: ...
    def save(
        self,
        instance_id: str,
        tp_rank: int,
        pp_rank: int,
        device_id: int,
        saves: Iterable[_Save],
        *,
        timeout: float | None = None,
        wait_event: bytes | None = None,
    ) -> tuple[bool, str]:
        """Returns when the source may be reused. ``wait_event``: exported, such as ``torch.cuda.Event.ipc_handle()``."""
    def load(
        self,
        instance_id: str,
        tp_rank: int,
        device_id: int,
        load_state_shm: str,
        layer_groups: Iterable[Iterable[str]],
        loads: Iterable[_LeaseLoad],
        *,
        timeout: float | None = None,
        wait_event: bytes | None = None,
    ) -> tuple[bool, str]:
        """Starts a load; its outcome arrives in the PyLoadState of this name. ``timeout`` is the copy's as well: then it fails.

        Until the state is ready the destination is written to, also when nobody waits any more."""
    def cancel_load(self, instance_id: str, load_state_shm: str) -> tuple[bool, str]:
        """Asks a load to end early; its state tells when no byte moves any more. Raises when it is over."""
    def query_prefetch(
        self,
        instance_id: str,
        block_hashes: Iterable[bytes],
        req_id: str,
        wait_for_full_prefix: bool = False,
        group_id: int = 0,
        *,
        lease_time: float | None = None,
    ) -> QueryLoading | QueryReady:
        """A server that is away, or does not answer in time, is a miss: QueryReady(0, b"", [])."""
    def release(self, lease: bytes) -> None: ...
    def start_session_watcher(self, instance_id: str, namespace: str, tp_size: int, world_size: int) -> None:
        """Ties the instance's life to this process: when it dies the server frees what it held."""
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
