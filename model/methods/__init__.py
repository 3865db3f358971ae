"""Methods that take an AnnData and write results into it.

In: an AnnData and options. Out: a `Call` for the engine or a client to carry out. For the engine and `scpalm.client`.
"""

from __future__ import annotations

from scpalm.model.methods.anndata_methods import AnnDataMethods
from scpalm.model.methods.call import Call

__all__ = ["AnnDataMethods", "Call"]
