"""Networks that tilesegment did not write: ONNX, bioimage.io, TorchScript, .pt2, Python."""
