"""Room imputation."""
