"""The cross-encoder's files: where they are, and whether they are the right ones.

    files         hub name or folder to a checked directory
    random_model  a model of the specified shape with random weights, for measuring

Imports `rerank.outcomes` and `inference`; no settings.
"""
