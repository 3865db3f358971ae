"""The network in torch: sparse rows in; embedding, pathway codes and decoded expression out. Shapes stand in each file.

Used by training, export and the TorchScript session. Serving with ONNX Runtime imports none of it but `config`.
"""
