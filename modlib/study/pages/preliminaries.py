"""The choices before the method: the norm p of the stemming loss, and methods A (base class) and B (average)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from matplotlib.figure import Figure

from modlib import recipes
from modlib.study import figures, tables
from modlib.study.claims import Claim
from modlib.study.columns import Load, listing, stand_in
from modlib.study.experiment import Experiment
from modlib.study.names import of_data, of_model, of_network
from modlib.study.published import trials_of
from modlib.study.records import Record, Store, interval, mean_and_spread, signed
from modlib.study.trials import Trial, differences, is_done, last_epochs, run_variants, variants
from modlib.study.verdicts import DOES_NOT_HOLD, HOLDS, OPEN
from modlib.zoo.datasets import load as load_images

PAPERS = "p = 1, α = 1"
"""The paper's choice: its trials are method B, too."""
UNSTEMMED = "without stemming"
NOISE = 0.005
"""A difference that counts as none: of accuracy, or of remaining parameters, as fractions."""
QUANTITIES = {"remaining_parameters": "remaining parameters, pairs (%)", "accuracy": "accuracy of the vote (%)"}
"""What is drawn over the epochs, and its label."""


def squared(alphas: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Return the settings of p = 2 at some alphas, by the name that the page gives them."""
    return {f"p = 2, α = {alpha:g}": {"p": 2, "alpha": float(alpha)} for alpha in alphas}


def from_base(base_class: int) -> str:
    """Return how the page calls method A from a base class."""
    return f"A, base {base_class}"


@dataclass(frozen=True)
class Plan:
    """What the page asks for: its parameters.

    Every seed: p = 1, no stemming, and p = 2 at `further_alphas`. The first seed alone: p = 2 at `squared_alphas`, and
    method A from every base class; A from the best and the worst of them with the first `base_trials` seeds.
    `elsewhere`: a second data set for A from every base class, with the first seed; empty: none.
    """

    dataset: str
    model: str
    seeds: Sequence[int]
    k: float
    parent_epochs: int
    epochs: int
    squared_alphas: Sequence[float]
    further_alphas: Sequence[float]
    base_classes: Sequence[int]
    base_epochs: int
    base_trials: int
    elsewhere: str = ""

    @classmethod
    def of(cls, **parameters: Any) -> Plan:
        """Return the plan among a notebook's variables."""
        return cls(**{field.name: parameters[field.name] for field in fields(cls)})

    def __post_init__(self) -> None:
        if not self.seeds or not self.base_classes:
            raise ValueError(f"{'base_classes' if self.seeds else 'seeds'}: empty; name at least one")
        if not self.squared_alphas and not self.further_alphas:
            raise ValueError("squared_alphas, further_alphas: both empty; name one, for p = 1 to be compared with")
        if self.base_epochs > self.epochs:
            raise ValueError(
                f"base_epochs: {self.base_epochs} is more than epochs ({self.epochs}), at which method B ends"
            )
        if self.elsewhere == self.dataset:
            raise ValueError(f"elsewhere: {self.elsewhere!r} is the page's own data set; name another one, or none")

    @property
    def base(self) -> Trial:
        """The trial that all others change something of."""
        recipe = recipes.published(k=self.k, epochs=self.epochs)
        return Trial(self.dataset, self.model, "published", recipe, self.seeds[0], self.parent_epochs)

    def norms(self) -> dict[str, list[Trial]]:
        """Return the trials of the norms by name: p = 1, p = 2 by alpha, and without stemming."""
        one, swept = {PAPERS: {"alpha": 1.0}}, squared(sorted({*self.squared_alphas, *self.further_alphas}))
        every = one | squared(self.further_alphas) | {UNSTEMMED: {"alpha": 0.0}}
        # where both have a name, it keeps the place of the first, and gets the trials of the second
        return variants(self.base, one | swept, self.seeds[:1]) | variants(self.base, every, self.seeds)

    def from_bases(
        self, base_classes: Sequence[int], seeds: Sequence[int], dataset: str = ""
    ) -> dict[str, list[Trial]]:
        """Return the trials of method A from some base classes, by name; `dataset`: another one than the page's."""
        common = {"method": "base", "epochs": self.base_epochs}
        base = replace(self.base, dataset=dataset or self.dataset)
        return variants(base, {from_base(c): common | {"base_class": c} for c in base_classes}, seeds)

    def first_bases(self) -> dict[str, list[Trial]]:
        """Return the trials of method A from every base class, with the first seed."""
        return self.from_bases(self.base_classes, self.seeds[:1])

    def bases_elsewhere(self) -> dict[str, list[Trial]]:
        """Return the trials of method A from every base class on the second data set, with the first seed."""
        return self.from_bases(self.base_classes, self.seeds[:1], self.elsewhere) if self.elsewhere else {}

    def extremes(self, rows: pd.DataFrame) -> tuple[int, int]:
        """Return the best and the worst base class on held-out images, in the last epoch; `rows`: of `first_bases`."""
        accuracy = last_epochs(rows, "held_out", by=["variant"]).set_index("variant")["accuracy"]
        classes = {from_base(c): c for c in self.base_classes}
        return classes[str(accuracy.idxmax())], classes[str(accuracy.idxmin())]

    def further_bases(self, rows: pd.DataFrame) -> dict[str, list[Trial]]:
        """Return the further trials of method A, from the best and the worst base class; `rows`: of `first_bases`."""
        seeds = self.seeds[1 : self.base_trials]
        return self.from_bases(self.extremes(rows), seeds) if seeds else {}


def experiments(*, results: str = "", **parameters: Any) -> list[Experiment]:
    """Return every experiment of the page, as far as it can be told: the first seed chooses two base classes.

    `parameters`: see `Plan`.
    """
    plan, store = Plan.of(**parameters), listing(results)
    first = plan.first_bases()
    found = _experiments(plan.norms() | first) + _experiments(plan.bases_elsewhere())
    if all(is_done(trial, store) for part in first.values() for trial in part):
        _, rows = run_variants(first, stand_in(plan.dataset), store)
        found += _experiments(plan.further_bases(rows))
    return found


def _experiments(trials: Mapping[str, Sequence[Trial]]) -> list[Experiment]:
    return [trial.experiment for part in trials.values() for trial in part]


@dataclass(frozen=True)
class Elsewhere:
    """Method A on the second data set, a trial from every base class.

    `accuracy`: on test images, a fraction, by variant. `best`: the base class that is best on held-out images.
    """

    accuracy: pd.Series
    best: int


@dataclass(frozen=True)
class Preliminaries:
    """What came out on one network.

    `rows`: on test images, one for each variant, seed and epoch. `best`, `worst`: the base classes of method A that are
    so on held-out images, with the first seed. `elsewhere`: the second data set, if there is one.
    """

    plan: Plan
    done: list[Record]
    rows: pd.DataFrame
    best: int
    worst: int
    elsewhere: Elsewhere | None = None

    @property
    def network(self) -> str:
        """The network in the words of a caption."""
        return of_network(self.plan.dataset, self.plan.model)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The rows of the norms."""
        return self.rows[self.rows["variant"].isin(list(self.plan.norms()))]

    @cached_property
    def ends(self) -> pd.DataFrame:
        """What is compared of the norms: one row for each `variant` and `seed`, with the columns of `summed_up`."""
        parts = tables.groups(self.curves, ["variant", "seed"], sort=False)
        return pd.DataFrame([{"variant": name, "seed": seed} | summed_up(part) for (name, seed), part in parts])

    @cached_property
    def methods(self) -> pd.DataFrame:
        """The rows of methods A and B after as many epochs as A has; B's variant is the paper's choice."""
        of_methods = self.rows["variant"].isin([PAPERS, *self.plan.first_bases()])
        return self.rows[of_methods & (self.rows["epoch"] == self.plan.base_epochs)]

    @cached_property
    def closest(self) -> str:
        """The p = 2 whose remaining parameters end closest to those of p = 1, of those with the most trials."""
        gaps = differences(self.ends, PAPERS, "remaining_parameters").filter(like="p = 2")
        complete = gaps.loc[:, gaps.count() == gaps.count().max()]
        return str(complete.mean().abs().idxmin())

    def apart(self, quantity: str) -> pd.Series:
        """Return a quantity of `summed_up` under p = 1 minus under the closest p = 2, by seed."""
        return -differences(self.ends, PAPERS, quantity)[self.closest].dropna()

    def mean(self, norm: str, quantity: str) -> float:
        """Return the mean of a quantity of `summed_up`, times 100, over the trials that `apart` compares."""
        compared = self.ends[self.ends["seed"].isin(self.apart(quantity).index)]
        return 100 * float(compared[compared["variant"] == norm][quantity].mean())

    def lead(self, base_class: int) -> pd.Series:
        """Return the accuracy of method A from a base class minus that of B, a fraction, by seed."""
        return differences(self.methods, PAPERS, "accuracy")[from_base(base_class)].dropna()

    @property
    def ahead(self) -> str:
        """From how many base classes method A is more accurate than B, in the first trial."""
        bases = self.plan.base_classes
        return f"{sum(self.lead(c).get(self.plan.seeds[0], 0.0) > 0 for c in bases)} of {len(bases)}"

    def by_base(self, elsewhere: Elsewhere) -> pd.DataFrame:
        """Accuracy of method A in the first trial: a row for each base class, here and on the second data set."""
        first = self.methods[self.methods["seed"] == self.plan.seeds[0]].set_index("variant")["accuracy"]
        both = pd.DataFrame({"here": first, "elsewhere": elsewhere.accuracy})
        return both.loc[[from_base(c) for c in self.plan.base_classes]]

    def lost(self, elsewhere: Elsewhere) -> tuple[float, float]:
        """What the other data set's best base class loses against a data set's own, a fraction: here, and elsewhere."""
        table, own, other = self.by_base(elsewhere), from_base(self.best), from_base(elsewhere.best)
        here, there = table["here"], table["elsewhere"]
        return float(here[own] - here[other]), float(there[other] - there[own])

    @property
    def depends(self) -> str:
        """Whether a good base class depends on the data set: holds if more than half a point is lost both ways."""
        if self.elsewhere is None:
            return OPEN
        lost = self.lost(self.elsewhere)
        return HOLDS if min(lost) > NOISE else DOES_NOT_HOLD if max(lost) < NOISE else OPEN

    @property
    def verdicts(self) -> tuple[str, str, str]:
        """Whether p = 1 is slower, whether the best accuracy is alike, whether A is not better than B."""
        # too far apart to be compared: a matter of the alphas that were tried, not of the trials
        far = abs(self.apart("remaining_parameters").mean()) > NOISE
        # both readings of "best accuracy" have to agree
        alike = {unchanged(self.apart(best)) for best in ("best", "best_of_all")}
        best = OPEN if far or len(alike) > 1 else alike.pop()
        return OPEN if far else lower(self.apart("pace"), 0.0), best, lower(self.lead(self.best), NOISE)


def summed_up(trial: pd.DataFrame) -> dict[str, float]:
    """Return what is compared of a trial; `trial`: its rows on test images, a row for each epoch.

    `pace`: mean change of the remaining parameters in an epoch. `best`: accuracy with stemming, which the first epoch
    does not have. `best_of_all`: over all epochs. The others: after the last epoch.
    """
    accuracy, last = trial["accuracy"], trial.iloc[-1]
    return {
        "pace": float(trial["remaining_parameters"].diff().abs().mean()),
        "best": float(accuracy[trial["epoch"] > 1].max()),
        "best_of_all": float(accuracy.max()),
        **{name: float(last[name]) for name in ("accuracy", "remaining_parameters", "jaccard_index")},
    }


def span(values: pd.Series) -> tuple[float, float]:
    """Return the 95% interval of the mean of differences; a single difference is both ends of its own."""
    return (float(values.iloc[0]),) * 2 if len(values) == 1 else interval(values)


def unchanged(values: pd.Series) -> str:
    """Return the verdict on "no significant change": whether `span` lies within `NOISE`, outside, or neither."""
    low, high = span(values)
    if low >= -NOISE and high <= NOISE:
        return HOLDS
    return DOES_NOT_HOLD if low > NOISE or high < -NOISE else OPEN


def lower(values: pd.Series, noise: float) -> str:
    """Return the verdict on "lower": whether `span` lies below zero, above, or neither.

    `noise`: how far from zero a single difference must be, which tells nothing of its spread.
    """
    low, high = span(values)
    margin = noise if len(values) == 1 else 0.0
    return HOLDS if high < -margin else DOES_NOT_HOLD if low > margin else OPEN


def run(store: Store, load: Load = load_images, **parameters: Any) -> Preliminaries:
    """Return what came out; `parameters`: see `Plan`."""
    plan = Plan.of(**parameters)
    data = load(plan.dataset)
    done, norms = run_variants(plan.norms(), data, store)
    of_bases, first = run_variants(plan.first_bases(), data, store)
    done, parts = done + of_bases, [norms, first]
    second = None
    if plan.elsewhere:
        of_bases, others = run_variants(plan.bases_elsewhere(), load(plan.elsewhere), store)
        accuracy = last_epochs(others, by=["variant"]).set_index("variant")["accuracy"]
        done, second = done + of_bases, Elsewhere(accuracy, plan.extremes(others)[0])
    further = plan.further_bases(first)
    if further:
        of_bases, rows = run_variants(further, data, store)
        done, parts = done + of_bases, [*parts, rows]
    rows = pd.concat(parts, ignore_index=True)
    return Preliminaries(plan, done, rows[rows["split"] == "test"], *plan.extremes(first), second)


def draw_norms(found: Preliminaries) -> Figure:
    """Draw remaining parameters and accuracy, epoch by epoch: the mean over trials, one standard deviation shaded."""
    figure, axes = plt.subplots(1, 2, figsize=(figures.WIDTH, 2.3))
    palette = _palette(list(found.plan.norms()))
    shown = found.curves.assign(**{quantity: 100 * found.curves[quantity] for quantity in QUANTITIES})
    for ax, (quantity, label) in zip(axes, QUANTITIES.items(), strict=True):
        style = {"x": "epoch", "y": quantity, "hue": "variant", "palette": palette, "errorbar": "sd"}
        sns.lineplot(shown, ax=ax, legend=ax is axes[0], **style)
        ax.set_ylabel(label)
    axes[0].axhline(100 * found.plan.k, ls=":", color="black", lw=1)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].get_legend().remove()
    figure.legend(handles, labels, frameon=False, fontsize=8, ncols=4, loc="outside upper center")
    return figure


def _palette(names: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each norm; those of p = 2 deepen with alpha."""
    squares = [name for name in names if name.startswith("p = 2")]
    shades = sns.color_palette("blend:#fdae6b,#7f2704", len(squares))
    own = {PAPERS: figures.COLOURS["published"], UNSTEMMED: figures.COLOURS["no stemming"]}
    return own | dict(zip(squares, shades, strict=True))


def norms(found: Preliminaries) -> Markdown:
    """Return the table of the norms."""
    lines = [
        {
            "norm": name,
            "accuracy, best epoch (%)": mean_and_spread(part["best_of_all"]),
            "best from epoch 2 on": mean_and_spread(part["best"]),
            "last epoch": mean_and_spread(part["accuracy"]),
            "remaining parameters, pairs (%)": mean_and_spread(part["remaining_parameters"]),
            "Jaccard index": mean_and_spread(part["jaccard_index"], 1, 3),
            "change an epoch (points)": mean_and_spread(part["pace"], digits=3),
            "n": len(part),
        }
        for name, part in tables.groups(found.ends, "variant", sort=False)
    ]
    caption = (
        f"The norms after {found.plan.epochs} epochs, {found.network}, test images, mean ± standard deviation over n "
        "trials. Best epochs are best on test images, as in the paper. Change an epoch: that of the remaining "
        "parameters, on average."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-preliminaries-p")


def methods(found: Preliminaries) -> Markdown:
    """Return the table of method B, and of method A from every base class."""
    names = {PAPERS: "B, average"}
    names |= {from_base(found.worst): f"{from_base(found.worst)} (worst)"}
    names |= {from_base(found.best): f"{from_base(found.best)} (best)"}
    lead = 100 * differences(found.methods, PAPERS, "accuracy")
    lines = [
        {
            "method": names.get(name, name),
            "accuracy, all classes (%)": mean_and_spread(part["accuracy"]),
            "against B (points)": "" if name == PAPERS else signed(lead[name].dropna()),
            "accuracy, pairs (%)": mean_and_spread(part["pair_accuracy"]),
            "remaining parameters, pairs (%)": mean_and_spread(part["remaining_parameters"]),
            "Jaccard index": mean_and_spread(part["jaccard_index"], 1, 3),
            "n": len(part),
        }
        for name, part in tables.groups(found.methods, "variant", sort=False)
    ]
    caption = (
        f"Methods A and B, α = 1, epoch {found.plan.base_epochs}, {found.network}, test images, mean ± standard "
        "deviation over n trials; against B seed by seed. Best and worst: on held-out images, in the first trial."
    )
    return tables.table(pd.DataFrame(lines), caption, "tab-preliminaries-methods")


def elsewhere(found: Preliminaries) -> Markdown:
    """Return what a good base class of one data set is worth on another: a sentence, and the table of both."""
    plan, second = found.plan, found.elsewhere
    if second is None:
        return Markdown("No second data set was run (parameter `elsewhere`).")
    table = found.by_base(second)
    lines = [
        {
            "base class": str(c),
            f"{of_data(plan.dataset)} (%)": f"{100 * here:.2f}{' (best)' if c == found.best else ''}",
            f"{of_data(plan.elsewhere)} (%)": f"{100 * there:.2f}{' (best)' if c == second.best else ''}",
        }
        for c, here, there in zip(plan.base_classes, table["here"], table["elsewhere"], strict=True)
    ]
    caption = (
        f"Accuracy of all classes by method A from every base class, {of_model(plan.model)}, α = 1, epoch "
        f"{plan.base_epochs}, test images, n = 1 trial. Best: on held-out images."
    )
    shown = tables.table(pd.DataFrame(lines), caption, "tab-preliminaries-elsewhere")
    return Markdown(f"{_about_elsewhere(found, second)}\n\n{shown.data}")


def _about_elsewhere(found: Preliminaries, second: Elsewhere) -> str:
    here, there = (signed([-100 * lost]) for lost in found.lost(second))
    one, two = of_data(found.plan.dataset), of_data(found.plan.elsewhere)
    table = found.by_base(second)
    ranks = float(table["here"].rank().corr(table["elsewhere"].rank()))
    return (
        f"On {one} the best base class of {two} ({second.best}) gives {here} points against {one}'s own "
        f"({found.best}); the other way round it is {there}. Over the {len(table)} base classes the rank correlation "
        f"of the two accuracies is {'not defined' if math.isnan(ranks) else format(ranks, '.2f')}. That a good choice "
        f"depends heavily on the data set: **{found.depends}**."
    )


def points(values: pd.Series, digits: int = 2) -> str:
    """Return the mean of differences of shares in points, with its 95% interval where there are several trials."""
    low, high = interval(100 * values)
    between = f" (95% interval {low:+.{digits}f} to {high:+.{digits}f})" if len(values) > 1 else ""
    return f"{signed([100 * values.mean()], digits)} points{between}"


def answer(found: Preliminaries) -> Markdown:
    """Return the page's answer: on the norms, and on methods A and B."""
    slower, best, base = found.verdicts
    if len({unchanged(found.apart(which)) for which in ("best", "best_of_all")}) > 1:
        best += ", because two readings of it disagree"
    one, two = (found.mean(norm, "pace") for norm in (PAPERS, found.closest))
    of_norms, lead = trials_of(len(found.apart("pace"))), found.lead(found.best)
    return Markdown(
        f"**Answer** ({found.network}).\n\n"
        f"- p = 1 changes more slowly: **{slower}** (n = {of_norms}). The remaining parameters change by "
        f"{one:.3f} points an epoch, with {found.closest} by {two:.3f}.\n"
        f"- Both have the same best accuracy: **{best}** (n = {of_norms}). With stemming p = 1 has "
        f"{points(found.apart('best'))}; counting the first epoch, which has no stemming yet, "
        f"{points(found.apart('best_of_all'))}.\n"
        f"- A is not better than B: **{base}** (n = {trials_of(len(lead))}). From the best base class A has "
        f"{points(lead)} against B. In the first trial it is ahead from {found.ahead} base classes."
    )


def judged(found: Preliminaries) -> list[Claim]:
    """Return the verdicts on the norms and on method A; open on other networks than the paper's FC1."""
    own_network = (found.plan.dataset, found.plan.model) == ("mnist", "fc1")
    slower, best, base = found.verdicts if own_network else (OPEN, OPEN, OPEN)
    two, lead, of_norms, mean = found.closest, found.lead(found.best), len(found.apart("pace")), found.mean
    return [
        Claim(
            "p = 1 changes more slowly than p = 2",
            "Preliminaries",
            "no number",
            f"the remaining parameters change by {mean(PAPERS, 'pace'):.3f} points an epoch (p = 1) and "
            f"{mean(two, 'pace'):.3f} ({two}, which ends closest)",
            slower,
            of_norms,
        ),
        Claim(
            "p = 1 and p = 2 make no significant change in the best accuracy, or in the parameters required",
            "Preliminaries",
            "no number",
            f"p = 2 gets as small: {mean(two, 'remaining_parameters'):.2f}% against "
            f"{mean(PAPERS, 'remaining_parameters'):.2f}%; best accuracy, p = 1 ({mean(PAPERS, 'best'):.2f}%) against "
            f"{two}, with stemming {points(found.apart('best'))}, over all epochs {points(found.apart('best_of_all'))}",
            best,
            of_norms,
        ),
        Claim(
            "Method A is not equal to or better than method B",
            "Module Co-training",
            "no number",
            f"from the best base class on held-out images {points(lead)} against B; more accurate from {found.ahead} "
            "base classes in the first trial",
            base,
            len(lead),
        ),
        Claim(
            "A good base class for method A depends heavily on the data set",
            "Module Co-training",
            "no number",
            _lost_elsewhere(found),
            found.depends if own_network else OPEN,
            "" if found.elsewhere is None else 1,
        ),
    ]


def _lost_elsewhere(found: Preliminaries) -> str:
    if found.elsewhere is None:
        return "method A was run on one data set alone"
    here, there = (signed([-100 * lost]) for lost in found.lost(found.elsewhere))
    one, two = of_data(found.plan.dataset), of_data(found.plan.elsewhere)
    return f"{two}'s best base class has {here} points on {one} against the best there, the other way round {there}"
