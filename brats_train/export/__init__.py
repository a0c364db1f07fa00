"""Exported models: ONNX files and folders in the hub's layout, with a model card."""
