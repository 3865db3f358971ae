"""What operators see: metrics, logs and traces. In: events of the service; out: Prometheus, stderr, OTLP.

Every room may call it.
"""
