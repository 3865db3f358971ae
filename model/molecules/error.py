"""A molecule that cannot be used."""

from __future__ import annotations

from scpalm.model.errors import InputError


class MoleculeError(InputError):
    """A drug whose structure cannot be used; the detail names the drug and the reason."""

    def __init__(self, code: str, drug: str, reason: str, *, hint: str) -> None:
        super().__init__(code, f"Drug '{drug[:80]}' {reason}", hint=hint, field="drugs")
        self.drug = drug
        self.reason = reason
