"""Room pathways."""
