"""Models run on the CPU: BERT as an ONNX graph, made from its safetensors weights, run by ONNX Runtime.

    bert_graph   the graph of a cross-encoder and that of an embedding model, over one body
    weights      tensors of a safetensors file, checked
    session      an ONNX Runtime session with a given number of threads

A leaf that `memory` and `rerank` share: imports nothing of ours, knows neither settings nor texts.
"""
