"""Drug response: ln IC50 of cells x drugs, by DeepCDR (Liu et al. 2020) with h_C as the expression input."""
