"""The commands of `scpalm`, one per file. In: arguments. Out: files, tables or a running service. Called by `main`."""
