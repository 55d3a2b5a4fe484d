"""Emotion and sentiment from text, pictures and video: a staged, reproducible pipeline.

Run a stage with ``python -m pipeline <stage>``; the whole graph is in ``dvc.yaml``.
"""
