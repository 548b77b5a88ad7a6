"""Networks made small and fast, and shipped to where this package is not installed.

`slicing`    channels cut out of any network that Torch-Pruning can trace
`repair`     what is left learns in closed form to give what its parent gave
`measuring`  `measure` and `cost`: parameters, multiply-adds, bytes, milliseconds, beside the parent
`exporting`  `export`: ONNX and torch.export, checked at once
`quantising` `quantised`: the ONNX file in int8
`programs`   networks read back from files of torch.export
"""

from modlib.deploy.exporting import Exported, export
from modlib.deploy.measuring import Measured, cost, measure
from modlib.deploy.quantising import Quantised, quantised

__all__ = ["Exported", "Measured", "Quantised", "cost", "export", "measure", "quantised"]
