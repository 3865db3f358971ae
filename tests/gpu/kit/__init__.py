"""Measures and checks scPaLM on a machine with an NVIDIA GPU: ``python -m tests.gpu.kit``.

In: sizes. Out: a table and JSON. Imports nothing of the service, and of training only what runs without its extra.
"""
