# SPDX-License-Identifier: Apache-2.0
"""What PegaFlow raises. The class says what to do about a failure; ``code`` names it, ``native_code`` is that of the layer below."""


class PegaFlowError(Exception):
    """A call failed. Base of all but :class:`InvalidArgument`."""

    code: str = "internal"
    native_code: int = 0


class PegaflowInternal(PegaFlowError):
    """The server or the engine failed at what it should be able to do."""


class PeerLost(PegaFlowError, ConnectionError):
    """The server or peer is gone: connect again or go on without it."""


class DeadlineExceeded(PegaFlowError, TimeoutError):
    """The time was up."""


class QueueFull(PegaFlowError):
    """Nothing started: the queue is full. Try again."""


class NotFound(PegaFlowError, LookupError):
    """What the call names does not exist."""


class NotReady(PegaFlowError):
    """Valid, but not in the present state: an instance with workers missing, a lease that is over."""


class AlreadyExists(PegaFlowError):
    """What the call would make is there already."""


class OutOfMemory(PegaFlowError, MemoryError):
    """Memory or another resource ran out."""


class RegionLost(PegaFlowError):
    """The memory behind a region or a layer is gone, or cannot be opened."""


class Unsupported(PegaFlowError):
    """Valid, but not offered here."""


class Canceled(PegaFlowError):
    """Ended early on request, at its deadline, or by close."""


class Corrupt(PegaFlowError):
    """Bytes are not what they claim to be."""


class InvalidArgument(ValueError):
    """The arguments are wrong: the call can never succeed as it is."""

    code: str = "invalid"
    native_code: int = 0


_BY_CODE: dict[str, type[PegaFlowError] | type[InvalidArgument]] = {
    "invalid": InvalidArgument,
    "internal": PegaflowInternal,
    "peer_lost": PeerLost,
    "deadline_exceeded": DeadlineExceeded,
    "queue_full": QueueFull,
    "not_found": NotFound,
    "not_ready": NotReady,
    "exists": AlreadyExists,
    "no_memory": OutOfMemory,
    "region_lost": RegionLost,
    "unsupported": Unsupported,
    "canceled": Canceled,
    "corrupt": Corrupt,
}


def from_code(code: str, message: str, native_code: int) -> PegaFlowError | InvalidArgument:
    """The exception that stands for an error of the library."""
    error = _BY_CODE.get(code, PegaFlowError)(message)
    error.code = code
    error.native_code = native_code
    return error
