"""A recognizer as ONNX graphs, which other programs run without this project and without torch."""
