"""Jobs: requests whose answer is fetched later. A manifest, a ledger, chunks of results, and what runs them."""

from __future__ import annotations
