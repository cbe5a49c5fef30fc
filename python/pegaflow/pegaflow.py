# SPDX-License-Identifier: Apache-2.0
"""The names of the existing package's native module, for code that imports them from here."""

from ._core import EngineRpcClient, PyLoadState, QueryLoading, QueryReady, __version__
from .errors import PegaFlowError, PegaflowInternal

__all__ = ["EngineRpcClient", "PegaFlowError", "PegaflowInternal", "PyLoadState", "QueryLoading", "QueryReady", "__version__"]
