"""Runs BERT models on the CPU: builds an ONNX graph from their safetensors weights and runs it by ONNX Runtime.

    bert_graph   the graph of a cross-encoder and that of an embedding model, over one body
    weights      tensors of a safetensors file, checked
    session      an ONNX Runtime session with a given number of threads

Shared by `memory` and `rerank`. Imports no other package of this project, reads no settings and sees no text.
"""
