"""Segmentation networks trained on pseudo masks: DeepLab-v1, DeepLab-v2 and a small one, their losses, views,
prediction and export.

``build.build_segmenter`` makes a network, ``losses`` what it learns by, ``predict.predict_probabilities`` what it says
about a photo of any size, ``export.export_onnx`` a file that needs no PyTorch.
"""
