"""Auxiliary modules trained only while distilling, named in configs as `distill_app.adapters.<Class>`.

Constructors get `in_shape` and `out_shape`, shapes of activations with the batch dimension, from the program: of the
adapter's source and, where the config names one, of its target. `forward` takes the source's tensor. Where a source is
a list of addresses, or a mapping of them, shapes and tensors come as a list or a mapping too.
"""

from distill_app.adapters.attention import BatchSimilarityAttention, CrossLayerAttention, CrossLayerProjections
from distill_app.adapters.branches import ConvBranch, ExitBranch, TokenBranch
from distill_app.adapters.classifier import ClassCosts, ClassMaps, ReadMap, RegionLogits
from distill_app.adapters.context import GlobalContext
from distill_app.adapters.embeddings import LinearProjector, LogVarianceHead, SelfSupervisedHead
from distill_app.adapters.generation import MaskedGenerator, MaskedTokens, NegativeMargin
from distill_app.adapters.logits import NormedLogits, RescaledLogits
from distill_app.adapters.maps import (
    AveragedMap,
    ConvRegressor,
    FactorDecoder,
    FactorEncoder,
    MatchChannels,
    MatchStatistics,
    Resize,
    VIDRegressor,
    resize_map,
)
from distill_app.adapters.pseudo import PseudoBoxes
from distill_app.adapters.regions import AnchorMatches, RegionLabels
from distill_app.adapters.review import ReviewFusion
from distill_app.adapters.shapes import Shape
from distill_app.adapters.single import LearnableTemperature, SelectView

__all__ = [
    "AnchorMatches",
    "AveragedMap",
    "BatchSimilarityAttention",
    "ClassCosts",
    "ClassMaps",
    "ConvBranch",
    "ConvRegressor",
    "CrossLayerAttention",
    "CrossLayerProjections",
    "ExitBranch",
    "FactorDecoder",
    "FactorEncoder",
    "GlobalContext",
    "LearnableTemperature",
    "LinearProjector",
    "LogVarianceHead",
    "MaskedGenerator",
    "MaskedTokens",
    "MatchChannels",
    "MatchStatistics",
    "NegativeMargin",
    "NormedLogits",
    "PseudoBoxes",
    "ReadMap",
    "RegionLabels",
    "RegionLogits",
    "RescaledLogits",
    "Resize",
    "ReviewFusion",
    "SelectView",
    "SelfSupervisedHead",
    "Shape",
    "TokenBranch",
    "VIDRegressor",
    "resize_map",
]
