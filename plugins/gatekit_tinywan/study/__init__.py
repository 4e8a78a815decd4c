"""What the samplers, grids, history policies and strategies do on the small model.

``python -m gatekit_tinywan.study SET...`` runs named sets of cells against the converged flow of
the same model and keeps a value a sample; ``--markdown`` prints the tables.
"""
