"""Offline training: counts in; checkpoints, a bundle and evaluation tables out.

Run it with ``scpalm-train``. Imports ``scpalm.model``, never ``scpalm.app``.
"""
