"""Files of other formats. In: any file or folder of cells. Out: an h5ad file, or the line that converts it."""
