"""Genes and cells. In: counts with gene names. Out: normalised rows in the order of the model's vocabulary.

Used by the readers, the tasks and training. Knows neither files nor the network.
"""
