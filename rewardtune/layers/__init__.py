"""The transformer parts that policies and the UViM codec share.

Every parameter has the name part and shape that big_vision gives it (dense kernels are
[in, out], attention kernels keep their head axis), so published checkpoints load by renaming
alone and the optimizer sees the axes its statistics are factored over.
"""

from rewardtune.layers.attention import CrossAttention, SelfAttention
from rewardtune.layers.dense import Dense, LayerNorm
from rewardtune.layers.patches import PatchEmbedding
from rewardtune.layers.position import resample_position_embedding, sincos2d
from rewardtune.layers.transformer import DecoderBlock, Encoder, EncoderBlock, Mlp

__all__ = [
    "CrossAttention",
    "DecoderBlock",
    "Dense",
    "Encoder",
    "EncoderBlock",
    "LayerNorm",
    "Mlp",
    "PatchEmbedding",
    "SelfAttention",
    "resample_position_embedding",
    "sincos2d",
]
