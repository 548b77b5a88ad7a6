"""What the book decomposes: data sets, parents and their training. None of it is needed for a network of your own.

`datasets`      the book's data sets by name
`parents`       FC1 to FC4, VGG16, ResNet50 and WideResNet of the paper, and reduced ones
`training`      how parents are trained (paper, Table 3), and their accuracy
`parent_files`  parents on disk
`stored`        the parents of Pan and Rajan's artefact
"""

from modlib.zoo import datasets, parent_files, parents, stored, training

__all__ = ["datasets", "parent_files", "parents", "stored", "training"]
