"""Offline: counts -> checkpoints -> bundle, and evaluation."""
