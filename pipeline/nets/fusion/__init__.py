"""Fusion of modalities of which some may be absent, a file each: from the word of one to attention across all."""

from pipeline.nets.fusion.averaged import AveragedFusion
from pipeline.nets.fusion.first_present import FirstPresent
from pipeline.nets.fusion.fusion import Fusion
from pipeline.nets.fusion.linear import LinearFusion

FusedNet = Fusion | LinearFusion | FirstPresent | AveragedFusion
"""What makes one prediction of all modalities; all take the same arguments."""

__all__ = ["AveragedFusion", "FirstPresent", "FusedNet", "Fusion", "LinearFusion"]
