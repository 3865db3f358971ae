"""Scores of drug response beside their references, and the figures."""
