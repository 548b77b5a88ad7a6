"""The study that the book reports: records, trials, comparisons, claims, tables, figures, and the runner.

The book alone needs this room; `pip install 'modlib[book]'` brings what it needs.
"""

from modlib import extras

for _package in ("pandas", "scipy", "matplotlib", "seaborn", "yaml"):
    extras.require(_package, "modlib.study")
