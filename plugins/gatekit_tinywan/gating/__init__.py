"""The study of precision gating on the small model.

``python -m gatekit_tinywan.gating`` makes the weights that are not shipped, runs every arm on the
same captions and noise in batches, judges the videos and prints tables. It goes on where it was
left; results are a sweep's folder, which ``gatekit report`` reads.
"""
