"""Room parsing."""
