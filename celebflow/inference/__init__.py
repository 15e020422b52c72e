"""A trained model at work: on the command line, over HTTP, and as ONNX."""
