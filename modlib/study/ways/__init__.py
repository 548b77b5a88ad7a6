"""Ways to a network for a subset of a parent's classes, behind one interface: what a user would pick, and ours.

`RestrictedParent`  the parent, its logits cut to the subset
`KeptChannels`      whole channels cut out and repaired without labels: ours, class-blind, by scale or norm
`PrunedAndTuned`    Torch-Pruning's own pruner, and fine-tuning on labels
`SmallNetwork`      the parent's architecture, narrower, trained anew: on labels, or distilled

`build` gives a network and what it took; `compared` measures it.
"""

from modlib.study.ways.channels import KeptChannels
from modlib.study.ways.interface import Built, Made, Prepared, Way, build, prepare
from modlib.study.ways.restricted import RestrictedParent
from modlib.study.ways.small_network import SmallNetwork
from modlib.study.ways.torch_pruning import PrunedAndTuned

__all__ = [
    "WAYS",
    "Built",
    "KeptChannels",
    "Made",
    "Prepared",
    "PrunedAndTuned",
    "RestrictedParent",
    "SmallNetwork",
    "Way",
    "build",
    "prepare",
]

WAYS = {
    "restricted parent": RestrictedParent,
    "channels": KeptChannels,
    "torch-pruning": PrunedAndTuned,
    "small network": SmallNetwork,
}
"""By the name that a page's parameters give them; their fields are the settings."""
