"""Networks: backbones and heads, without any training logic."""

from mlcv.models.backbones import Backbone
from mlcv.models.clip_projector import CLIPProjector
from mlcv.models.csra import CSRAHead
from mlcv.models.head import Head
from mlcv.models.label_graph import GatedGraph, SemanticGraphHead
from mlcv.models.linear import LinearHead
from mlcv.models.local_global_conv import LocalGlobalConv, add_global_branches
from mlcv.models.lora import LoRA, add_lora, load_lora, lora_state, merge_lora, unmerge_lora
from mlcv.models.ml_decoder import MLDecoderHead
from mlcv.models.query2label import Query2LabelHead
from mlcv.models.semantic_decoupling import SemanticDecoupling

__all__ = [
    "Backbone",
    "CLIPProjector",
    "CSRAHead",
    "GatedGraph",
    "Head",
    "LinearHead",
    "LoRA",
    "LocalGlobalConv",
    "MLDecoderHead",
    "Query2LabelHead",
    "SemanticDecoupling",
    "SemanticGraphHead",
    "add_global_branches",
    "add_lora",
    "load_lora",
    "lora_state",
    "merge_lora",
    "unmerge_lora",
]
