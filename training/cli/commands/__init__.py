"""The commands of `scpalm-train`, one per file. In: arguments. Out: corpora, runs, bundles, tables. Used by `main`."""
