"""Formats: bytes in, cells out; results in, bytes out. One format a file, found by the registry.

A codec knows neither the model nor HTTP. Readers run in parser processes.
"""
