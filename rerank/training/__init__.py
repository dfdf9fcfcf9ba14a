"""Trains a small cross-encoder on candidates that somebody else has mined.

    pools      questions with their candidates, hybrid scores, and which of them answer
    pairs      token ids of (question, passage) pairs
    groups     an answer and four hard negatives each, in batches
    network    the first layers of an embedding model and a head, for torch
    loss       of the model's score, and of the fusion that serves
    loop       steps, learning curve, checkpoints
    scoring    the scores of whole pools
    fusion     those scores added to hybrid
    session    a plan and pools in, a trained network out
    export     the network as ONNX, in fp32 and with 8-bit matrices
    bundle     the folder that is served

Serving imports none of it, and only training needs torch.
"""
