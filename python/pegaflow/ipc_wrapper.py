# SPDX-License-Identifier: Apache-2.0
"""GPU memory of a torch tensor in the form in which existing connectors register it: a pickled object of this class.

``pegaflow serve`` reads the pickle with a reader that executes nothing. torch is imported when a tensor is wrapped, not before.
"""

from typing import TYPE_CHECKING, Any

from .errors import InvalidArgument

if TYPE_CHECKING:
    import torch  # type: ignore[import-not-found, unused-ignore]


class CudaIPCWrapper:
    """Names a CUDA tensor's storage to another process. ``pickle.dumps(CudaIPCWrapper(t))`` is one of ``wrapper_bytes_list``."""

    handle: tuple[Any, ...]
    dtype: "torch.dtype"
    shape: "torch.Size"
    stride: tuple[int, ...]
    storage_offset: int
    device_uuid: str

    def __init__(self, tensor: "torch.Tensor") -> None:
        import torch

        if not tensor.is_cuda:
            raise InvalidArgument(f"a tensor on {tensor.device} has no CUDA handle")
        if tensor.storage_offset() != 0:
            raise InvalidArgument(f"the tensor starts {tensor.storage_offset()} elements into its storage; wrap the whole of it")
        self.handle = tuple(tensor.untyped_storage()._share_cuda_())
        self.dtype = tensor.dtype
        self.shape = tensor.shape
        self.stride = tuple(tensor.stride())
        self.storage_offset = 0
        self.device_uuid = str(torch.cuda.get_device_properties(tensor.device).uuid)
