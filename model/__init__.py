"""What the service and the training package share: cells, genes, networks, bundles."""
