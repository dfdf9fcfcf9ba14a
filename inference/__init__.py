"""Runs models: an engine in front of one, and BERT on the CPU from its safetensors weights.

    engine/      a bounded queue, priorities, fair turns, batches, deadlines and a breaker in front of any model
    bert_graph   the graph of a cross-encoder and that of an embedding model, over one body
    weights      tensors of a safetensors file, checked
    remote       a server that has the model: timeouts, retries with jitter
    cores        how many CPU threads one forward gets
    session      an ONNX Runtime session with a given number of threads

Shared by `memory` and `rerank`. Imports no other package of this project, reads no settings and sees no text.
"""
