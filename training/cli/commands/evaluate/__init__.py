"""The commands ``scpalm-train evaluate ...``: labelled cells and a bundle in, tables and rows out. For `cli.main`."""
