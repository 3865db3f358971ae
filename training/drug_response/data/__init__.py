"""Published drug-response tables in; checked tables, train and test splits, and drug synonyms out.

Called by ``training.drug_response`` and ``evaluation.drug_response``.
"""
