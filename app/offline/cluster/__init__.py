"""Embed an atlas on several processes or machines with Dask: cells come in, a zarr store goes out.

Used by `scpalm embed --cluster`. An interrupted run continues where it stopped.
"""
