"""The Open Inference Protocol, version 2: messages, tensors and errors (app/routes/inference.py has the routes)."""
