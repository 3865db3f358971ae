"""A finished run in; a bundle that the service loads out, after parity and precision checks.

Called by the command line and drug_response.
"""
