"""Embeddings, imputation, pathway tokens and drug response of single cells."""
