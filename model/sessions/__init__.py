"""A bundle opened for inference: rows in; embeddings, codes and imputed values out, on ONNX Runtime or TorchScript.

Used by the engine, the tasks and execution. A cell's values do not depend on the other cells of a call.
"""
