"""What every training run shares: options, folder and checkpoints, processes, the training loop.

Imports ``scpalm.model`` only. Used by every room above.
"""
