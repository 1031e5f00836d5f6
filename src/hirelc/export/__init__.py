"""From a .hirelc file to an ONNX model that runs in integers, checked against the network that the file holds."""
