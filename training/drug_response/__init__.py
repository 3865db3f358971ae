"""Drug-response tables and a bundle in; trained heads, and a bundle that holds them, out.

Called by the command line and ``evaluation.drug_response``.
"""
