"""An atlas on many processes or machines: Dask distributed, a zarr store that is written by rows."""
