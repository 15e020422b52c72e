"""A trained model answers: on the command line, over HTTP, as ONNX."""
