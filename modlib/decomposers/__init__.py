"""Ways to take a classifier apart, behind one interface: `Decomposer.decompose` gives a `Decomposition`.

`ModuleStemming`      the paper's: a supermask a class, co-trained
`SharedMask`          one supermask for all classes; ours, the limit of a large alpha
`FixedMasks`          a mask that nothing is learnt for: all edges, the largest weights, random ones
`PanRajan`            the three older methods of the paper's Table 1: rules on activations
`WithoutIdleNeurons`  a control for those: the network without the neurons that nothing activates
`ChannelSaliency`     ours, no masks: it recomposes smaller, faster networks, whose weights are not the parent's

A further one is a class with that method, in a file of its own.
"""

from modlib.decomposers.channels import ChannelSaliency
from modlib.decomposers.fixed_masks import FixedMasks
from modlib.decomposers.interface import Decomposer, Decomposition
from modlib.decomposers.module_stemming import ModuleStemming
from modlib.decomposers.pan_rajan import PanRajan, WithoutIdleNeurons
from modlib.decomposers.shared_mask import SharedMask

__all__ = [
    "ChannelSaliency",
    "Decomposer",
    "Decomposition",
    "FixedMasks",
    "ModuleStemming",
    "PanRajan",
    "SharedMask",
    "WithoutIdleNeurons",
]
