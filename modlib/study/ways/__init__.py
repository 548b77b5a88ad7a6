"""Ways to a network for a subset of a parent's classes, behind one interface: what a user would pick, and ours.

`RestrictedParent`  the parent, its logits cut to the subset
`KeptChannels`      whole channels cut out and repaired without labels: ours, class-blind, by scale or norm
`TrainedChannels`   the same cut and repair of channels that trained masks choose
`PrunedAndTuned`    Torch-Pruning's own pruner, and fine-tuning on labels
`SmallNetwork`      the parent's architecture, narrower, trained anew: on labels, or distilled
`SearchedMask`      a mask of weights by gradient, after SeaM
`SplitFilters`      masks of filters by gradient, after GradSplitter
`ActivationDriven`  a parent trained to be modular, after MODA
`OneMask`           one supermask for the subset
`Stemmed`           module stemming, the paper's

`build` gives a network and what it took; `compared` measures it.
"""

from modlib.study.ways.channels import KeptChannels
from modlib.study.ways.gradsplitter import SplitFilters
from modlib.study.ways.interface import Built, Made, Prepared, Way, build, prepare
from modlib.study.ways.masks import OneMask, Stemmed
from modlib.study.ways.moda import ActivationDriven
from modlib.study.ways.restricted import RestrictedParent
from modlib.study.ways.seam import SearchedMask
from modlib.study.ways.small_network import SmallNetwork
from modlib.study.ways.torch_pruning import PrunedAndTuned
from modlib.study.ways.trained_channels import TrainedChannels

__all__ = [
    "WAYS",
    "ActivationDriven",
    "Built",
    "KeptChannels",
    "Made",
    "OneMask",
    "Prepared",
    "PrunedAndTuned",
    "RestrictedParent",
    "SearchedMask",
    "SmallNetwork",
    "SplitFilters",
    "Stemmed",
    "TrainedChannels",
    "Way",
    "build",
    "prepare",
]

WAYS = {
    "restricted parent": RestrictedParent,
    "channels": KeptChannels,
    "trained channels": TrainedChannels,
    "torch-pruning": PrunedAndTuned,
    "small network": SmallNetwork,
    "seam": SearchedMask,
    "gradsplitter": SplitFilters,
    "moda": ActivationDriven,
    "one mask": OneMask,
    "module stemming": Stemmed,
}
"""By the name that a page's parameters give them; their fields are the settings."""
