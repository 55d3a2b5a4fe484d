"""Fusion of modalities of which some may be absent: attention across them, gates, or concatenation, a file each."""

from pipeline.nets.fusion.fusion import Fusion

__all__ = ["Fusion"]
