"""The cross-encoder's files: where they are, whether they are the right ones, and the model made of them.

files         hub name or folder to a checked directory
loading       the directory to a backend
random_model  a model of the specified shape with random weights, for measuring
"""
