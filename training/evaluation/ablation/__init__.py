"""Room ablation."""
