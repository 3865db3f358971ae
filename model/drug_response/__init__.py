"""Drug response (paper 4.3): DeepCDR (Liu et al. 2020) with h_C as the expression input.

In: h_C and rows of cells, and drugs. Out: ln IC50 (uM) of every cell and drug. Used by the ic50 task and training.
"""
