"""A query on CELLxGENE Census, or on a local TileDB-SOMA experiment, in; h5ad files of the chosen cells out.

Used by ``scpalm.training.cli``. Needs the extra ``census``.
"""
