"""A bundle opened for inference, on ONNX Runtime or TorchScript. In: rows. Out: embeddings, codes and imputed values.

Used by the engine, the tasks and the service. A cell's values do not depend on the other cells in a call.
"""
