"""Published drug-response tables in; checked tables, and train and test splits out.

Called by ``training.drug_response`` and ``evaluation.drug_response``.
"""
