"""The network in torch. In: sparse rows. Out: embedding h_C, pathway codes and decoded expression.

Used by training, export and the TorchScript session. Serving with ONNX Runtime imports only `config`.
"""
