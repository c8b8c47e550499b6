"""Distillation losses: plain modules over tensors, named in configs as `distill_app.losses.<Class>`.

Forward takes keyword tensors (`student`, `teacher`, others where needed) and returns a scalar, computed in float32 at
least. The gradient does not flow into `teacher`, but for CCKD and CRD, where both embeddings are learnt.
"""

from distill_app.losses.alignment import DirectionDistance, FeatureCorrelation, MultiLevelAlignment, PearsonDistance
from distill_app.losses.boxes import FineGrainedImitation
from distill_app.losses.contrastive import ContrastiveRepresentation
from distill_app.losses.curriculum import CurriculumKL
from distill_app.losses.decoupled import DecoupledKL, NormalizedKD, RefinedKL
from distill_app.losses.features import (
    ActivationBoundary,
    AttentionTransfer,
    FactorTransfer,
    FlowOfSolution,
    PrimeAwareL2,
    VariationalInformation,
)
from distill_app.losses.focal import AttentionDistance, ContextDistance, FocalDistance
from distill_app.losses.heads import CrossHeadBoxes, CrossHeadClasses
from distill_app.losses.imitation import (
    ChannelwiseKL,
    ClassMapDistance,
    HierarchicalContext,
    MapDistance,
    MarginDistance,
    PearsonImitation,
    SquaredDistance,
)
from distill_app.losses.layer_attention import AttendedTransfer, SemanticCalibration
from distill_app.losses.logits import KLDivergence, SigmoidKL, VirtualTeacherKL
from distill_app.losses.own import Own
from distill_app.losses.pixels import (
    CrossImageRelations,
    IntraClassVariation,
    PairwiseSimilarity,
    PixelCrossEntropy,
    PixelwiseCrossEntropy,
)
from distill_app.losses.regions import ScaleDecoupled
from distill_app.losses.relations import (
    CorrelationCongruence,
    ProbabilisticTransfer,
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
)
from distill_app.losses.reweighted import TransformedTeacherKL, WeightedSoftLabels
from distill_app.losses.schedules import CosineDecay, ExponentialDecay, LinearWarmup, SigmoidRampUp
from distill_app.losses.selfsup import ContrastivePrediction, RotatedKL, SimilarityKL
from distill_app.losses.several import CollaborativeKL, ConfidenceDistance, MultiTeacherKL, MutualKL
from distill_app.losses.soft_labels import CustomizedSoftLabels
from distill_app.losses.spectra import SingularVectors
from distill_app.losses.standardised import SpreadTemperatureKL, StandardizedKL
from distill_app.losses.statistics import (
    AffinityDistance,
    ChannelCorrelation,
    NeuronSelectivity,
    WhitenedLogDistance,
)
from distill_app.losses.targets import (
    ActiveDistance,
    MaskedDistance,
    OneForAllCE,
    ProbabilityDistance,
    SoftCrossEntropy,
    TeacherLabels,
)
from distill_app.losses.views import CrossViewKL
from distill_app.losses.wasserstein import GaussianDistance, SinkhornDistance

__all__ = [
    "ActivationBoundary",
    "ActiveDistance",
    "AffinityDistance",
    "AttendedTransfer",
    "AttentionDistance",
    "AttentionTransfer",
    "ChannelCorrelation",
    "ChannelwiseKL",
    "ClassMapDistance",
    "CollaborativeKL",
    "ConfidenceDistance",
    "ContextDistance",
    "ContrastivePrediction",
    "ContrastiveRepresentation",
    "CorrelationCongruence",
    "CosineDecay",
    "CrossHeadBoxes",
    "CrossHeadClasses",
    "CrossImageRelations",
    "CrossViewKL",
    "CurriculumKL",
    "CustomizedSoftLabels",
    "DecoupledKL",
    "DirectionDistance",
    "ExponentialDecay",
    "FactorTransfer",
    "FeatureCorrelation",
    "FineGrainedImitation",
    "FlowOfSolution",
    "FocalDistance",
    "GaussianDistance",
    "HierarchicalContext",
    "IntraClassVariation",
    "KLDivergence",
    "LinearWarmup",
    "MapDistance",
    "MarginDistance",
    "MaskedDistance",
    "MultiLevelAlignment",
    "MultiTeacherKL",
    "MutualKL",
    "NeuronSelectivity",
    "NormalizedKD",
    "OneForAllCE",
    "Own",
    "PairwiseSimilarity",
    "PearsonDistance",
    "PearsonImitation",
    "PixelCrossEntropy",
    "PixelwiseCrossEntropy",
    "PrimeAwareL2",
    "ProbabilisticTransfer",
    "ProbabilityDistance",
    "RefinedKL",
    "RelationalAngle",
    "RelationalDistance",
    "RotatedKL",
    "ScaleDecoupled",
    "SemanticCalibration",
    "SigmoidKL",
    "SigmoidRampUp",
    "SimilarityKL",
    "SimilarityPreserving",
    "SingularVectors",
    "SinkhornDistance",
    "SoftCrossEntropy",
    "SpreadTemperatureKL",
    "SquaredDistance",
    "StandardizedKL",
    "TeacherLabels",
    "TransformedTeacherKL",
    "VariationalInformation",
    "VirtualTeacherKL",
    "WeightedSoftLabels",
    "WhitenedLogDistance",
]
