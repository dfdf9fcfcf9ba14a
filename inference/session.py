"""An ONNX Runtime session on the CPU. `run` may be called from several threads at once."""

from typing import Any


def cpu_session(graph: bytes, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` of a serialised model, on `threads` threads a call."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads win a millisecond on an idle machine and lose far more beside a web server's threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
