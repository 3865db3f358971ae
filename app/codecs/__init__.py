"""Room codecs."""
