"""What module stemming is compared with.

`pan_rajan`     the three older methods, and `methods`: all methods of Table 1 on one parent
`controls`      cheaper ways to keep as few edges, and `comparison`: all of them on the same trials
`single_class`  one module against the parent read one-against-rest
"""

from modlib.baselines import comparison, controls, methods, pan_rajan, single_class

__all__ = ["comparison", "controls", "methods", "pan_rajan", "single_class"]
