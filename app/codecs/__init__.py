"""Formats: readers turn bytes into cells, writers turn results into bytes. One file per format, found by the registry.

Readers run only in parser processes. Codecs know neither the model nor HTTP.
"""
