"""SMILES, InChI or InChIKey in; a standardised molecule, a key of its identity, and the graph of its atoms out.

Called by ``drug_response`` and by training. RDKit is loaded with the first molecule.
"""
