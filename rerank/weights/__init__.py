"""The cross-encoder's files: where they are, and whether they are the right ones.

    files         hub name or folder to a checked directory
    modules       the parts of a modular model, and the hash over all its weights
    exported      a folder with one ONNX file, such as the bundled model
    random_model  a model of the specified shape with random weights, for measuring

Imports `rerank.outcomes`, `rerank.ordering` and `inference`; no settings.
"""
