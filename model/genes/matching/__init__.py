"""Names of genes. In: the columns of a file. Out: the gene of the model that each column is, or why it is none."""
