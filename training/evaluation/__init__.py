"""What the outputs of a model are worth, beside baselines, in rows of JSON."""
