"""Claims of the paper's text that no page of its own judges: by what other pages have exported, and by what it prints.

And, for every claim on the scoreboard, what would change its verdict.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from modlib.study import printed, verdicts
from modlib.study.claims import Claim
from modlib.study.pages import augmentation
from modlib.study.records import Store, interval

COMPETITIVE = 1.0
"""Points that an accuracy may be below the best older method's and still be competitive with it."""
SMALL = 0.5
"""A network for all classes is small where it needs at most this share of the parent's weights."""
PARENTS = 0.5
"""Points within which a parent is almost as accurate as its reference."""
SAME = 0.005
"""Points below which accuracies are printed alike."""
NOT_MEASURED = "not measured"
NO = verdicts.DOES_NOT_HOLD

WOULD_CHANGE = {
    "MNIST FC1: recomposed accuracy (%)": "the α of the paper's Table 1, which it does not give",
    "MNIST FC1: Jaccard index of the masks": (
        "the α of the paper's Table 1, or the code: another reading of Eq. 1 gives it, with other numbers off"
    ),
    "MNIST FC1: two-class remaining parameters at epoch 25, α = 0": (
        "the authors' code: how scores are ranked and inputs scaled moves it by as much as the gap"
    ),
    "MNIST FC1: two-class remaining parameters at epoch 25, α = 1": (
        "the authors' code: how Eq. 1 is averaged and scores are ranked moves it by as much as the gap"
    ),
    "Stemming significantly reduces the parameters that recomposing needs": (
        "a network on which pairs with stemming need as much as without"
    ),
    "Without stemming, two-class remaining parameters are close to 2k": (
        "nothing that was tried: scores that start apart for each class stay below, too"
    ),
    "With stemming, the remaining parameters converge to close to 0.5": (
        "nothing: it is out of the range of the quantity"
    ),
    "The accuracy is also higher than the baseline in most cases": "other numbers in the paper's own table",
    "Module stemming outperforms the older method in terms of the Jaccard index": (
        "other numbers in the paper's own table"
    ),
    "Modules classify their own class accurately (mean over modules, all test images)": (
        "a mean of maxima half a point away from the printed one"
    ),
    "Recomposed networks classify with high accuracy": "training the vote, which the paper's recipe does not",
    "MNIST has an equal number of images of each class": "nothing: the data are counted",
    "F-MNIST has binary images": "nothing: the data are counted",
    "No assumption about the network architecture": (
        "masks for weights that are left whole: embeddings, recurrent matrices"
    ),
    "Module stemming has the higher Jaccard index, by one definition and on the same parents": (
        "a larger α, which raises the index and costs accuracy: so the order alone says little"
    ),
    "A module with its grafting layer outperforms the parent at its own class": (
        "a question on which the parent's other logits don't count"
    ),
    "Extracting from a large trained model is faster than learning a small model from scratch": (
        "how many subsets are asked for: the more, the better for extracting"
    ),
    "The right α depends on the size of the model": "trials of the large networks at full size",
    "Module co-training takes a computation time proportional to the number of classes": (
        "an engine that shares work between modules, or memory that many classes don't fit in"
    ),
    "The accuracy of the model decreased as the remaining parameters increased": (
        "another data set or larger networks, if they turned the order of the settings"
    ),
    (
        "Module stemming reduces the remaining parameters, and the accuracy is not ensured for α = 1 compared with "
        "α = 0"
    ): ("the three networks at full width and the paper's epochs, on a GPU"),
    "p = 1 changes more slowly than p = 2": "more trials, if the p = 2 that ends as small were slower",
    "p = 1 and p = 2 make no significant change in the best accuracy, or in the parameters required": (
        "a definition of best accuracy: with stemming alone, or with the first epoch, which has none"
    ),
    "Method A is not equal to or better than method B": (
        "more trials of A from its best base class: the interval of three has room for both"
    ),
    "Recomposed accuracy of all eight networks (recipe published)": (
        "the α and the number of epochs of the paper's Table 1: it gives neither"
    ),
    "Initial score sharing has no significant effect": (
        "more trials: the accuracy without stemming is not known well enough"
    ),
    "Each module holds only the classification function of its own class": (
        "modules without the parent's own logits in their grafting layers"
    ),
    "With stemming, the accuracy is sometimes better than without": (
        "an α above 0 that is clearly ahead of none over the trials, or clearly behind"
    ),
    "Under 50 epochs there was no change in the best accuracy over five trials": "five equal maxima; ours differ",
    "Augmentation improves the accuracy of supermasks": ("masks of the paper's parents, trained to their end"),
    "The accuracy of each parent is almost equal to that in its reference": (
        "convolutional parents at the paper's size"
    ),
    "A good base class for method A depends heavily on the data set": (
        "more trials: each base class has one on each data set"
    ),
    "A small network for an arbitrary set of classes, at once": (
        "a set of classes whose union is no smaller than the parent"
    ),
    "The older method is limited to fully connected layers": ("nothing for the version of 2020; its successor is not"),
    "Module stemming is competitive with the older methods in accuracy": "other numbers in the paper's own table",
}
"""By claim: what would change the verdict. Words only: nothing here is a result."""


def exported(store: Store, stem: str) -> pd.DataFrame:
    """Return the results that a page has written, one row per trial and epoch; empty where it has not."""
    path = None if store.folder is None else store.folder / f"{stem}.csv"
    return pd.read_csv(path) if path is not None and path.exists() else pd.DataFrame()


def judged(store: Store) -> Iterator[tuple[Claim, str, bool]]:
    """Yield claims, the stem of the page that has the evidence, and whether they are central."""
    yield _sometimes_better(exported(store, "table5")), "table5", True
    yield _no_change(exported(store, "table1")), "table1", False
    yield _augmented(exported(store, "augmentation")), "augmentation", False
    yield _as_good_as_references(exported(store, "baselines")), "table3", False
    yield _arbitrary_sets(exported(store, "table1")), "table1", True


def on_its_text() -> Iterator[tuple[Claim, str]]:
    """Yield claims that the paper's own numbers, or its references, decide."""
    wide = printed.numbers("table1").pivot(index=["dataset", "model"], columns="method", values="accuracy_percent")
    gap = wide[printed.STEMMING] - wide.drop(columns=printed.STEMMING).max(axis=1)
    near, every = int((gap >= -COMPETITIVE).sum()), len(gap)
    text = "Module stemming is competitive with the older methods in accuracy"
    here = f"within {COMPETITIVE:g} point of the best of them, or above, on {near} of {every} networks as printed; "
    here += f"{gap.min():+.2f} to {gap.max():+.2f} points"
    yield Claim(text, "Table 1", "no number", here, verdicts.of_columns(near, every, every), ""), "evaluation"
    text, where = "The older method is limited to fully connected layers", "Discussion"
    here = "so it was in 2020; Pan and Rajan took convolutional networks apart in 2022"
    yield Claim(text, where, "not applicable to convolutions", here, verdicts.PARTLY, ""), "../related_work"


def _on_test(rows: pd.DataFrame, **which: object) -> pd.DataFrame:
    """Return the rows of test images of recipe published, and of the values of `which`."""
    if rows.empty:
        return rows
    chosen = rows[(rows["split"] == "test") & (rows["recipe"] == "published")]
    for name, value in which.items():
        chosen = chosen[chosen[name] == value]
    return chosen


def _sometimes_better(rows: pd.DataFrame) -> Claim:
    """Judge each α against none, trial by trial: of several α some are ahead by chance."""
    text = ("With stemming, the accuracy is sometimes better than without", "Table 5", "no number")
    chosen = _on_test(rows, dataset="mnist", k=0.1)
    if chosen.empty or chosen["alpha"].nunique() < 2:
        return Claim(*text, NOT_MEASURED, verdicts.OPEN, "")
    best = 100 * chosen.groupby(["model", "seed", "alpha"])["module_accuracy"].max().unstack().dropna()
    ahead = best.drop(columns=0.0).sub(best[0.0], axis=0)
    spans = {alpha: interval(values) for alpha, values in ahead.items()}
    said = [
        f"α = {alpha:g} is more accurate in {int((ahead[alpha] > 0).sum())} of {len(ahead)} trials, "
        f"{ahead[alpha].mean():+.2f} points [{low:+.2f}, {high:+.2f}]"
        for alpha, (low, high) in spans.items()
    ]
    clear = any(low > 0 for low, _ in spans.values())
    verdict = verdicts.HOLDS if clear else NO if all(high < 0 for _, high in spans.values()) else verdicts.OPEN
    here = f"{'; '.join(said)} (means of modules, maximum over {chosen['epoch'].max()} epochs)"
    return Claim(*text, here, verdict, len(ahead))


def _no_change(rows: pd.DataFrame) -> Claim:
    text = "Under 50 epochs there was no change in the best accuracy over five trials"
    chosen = _on_test(rows, dataset="mnist", model="fc1")
    if chosen.empty or chosen["epoch"].max() < 50 or chosen["seed"].nunique() < 2:
        return Claim(text, "Table 5", "no change", NOT_MEASURED, verdicts.OPEN, "")
    best = 100 * chosen.groupby(["alpha", "seed"])["accuracy"].max()
    spread = best.groupby("alpha").agg(lambda values: values.max() - values.min())
    each = "; ".join(f"{value:.2f} points at α = {alpha:g}" for alpha, value in spread.items())
    here = f"the best accuracy of a trial differs by {each} between the lowest and the highest"
    largest = float(spread.max())
    verdict = verdicts.HOLDS if largest < SAME else verdicts.CLOSE if largest < verdicts.ACCURACY.tolerance else NO
    return Claim(text, "Table 5", "no change", here, verdict, chosen["seed"].nunique())


def _augmented(rows: pd.DataFrame) -> Claim:
    text = ("Augmentation improves the accuracy of supermasks", "Augmentation", "no number")
    if rows.empty:
        return Claim(*text, NOT_MEASURED, verdicts.OPEN, "")
    gained = augmentation.gains(augmentation.of_all_classes(rows))
    low, high = interval(gained)
    here = f"one mask of a small VGG16, trained for few epochs: {gained.mean():+.2f} points [{low:+.2f}, {high:+.2f}]"
    return Claim(*text, here, verdicts.OPEN, len(gained))


def _as_good_as_references(rows: pd.DataFrame) -> Claim:
    text = ("The accuracy of each parent is almost equal to that in its reference", "Table 3", "no number")
    if rows.empty or "stored" not in set(rows["parent"]):
        return Claim(*text, NOT_MEASURED, verdicts.OPEN, "")
    means = 100 * rows.groupby(["parent", "dataset", "model"])["parent_accuracy"].mean().unstack("parent").dropna()
    gap = means["own"] - means["stored"]
    near = int((gap >= -PARENTS).sum())
    here = f"fully connected: {near} of {len(gap)} at most {PARENTS:g} points below Pan and Rajan's stored ones "
    here += f"({gap.min():+.2f} to {gap.max():+.2f}); convolutional ones were not trained at the paper's size"
    return Claim(*text, here, verdicts.OPEN if near == len(gap) else verdicts.PARTLY, len(gap))


def _arbitrary_sets(rows: pd.DataFrame) -> Claim:
    text = ("A small network for an arbitrary set of classes, at once", "Introduction", "no number")
    chosen = _on_test(rows, dataset="mnist", model="fc1", alpha=1.0)
    if chosen.empty:
        return Claim(*text, NOT_MEASURED, verdicts.OPEN, "")
    last = chosen.sort_values("epoch").groupby("seed").tail(1)
    pair, every = last["remaining_parameters"].mean(), last["remaining_parameters_all"].mean()
    here = (
        f"any pair keeps {100 * pair:.1f}% of the weights, all ten classes {100 * every:.1f}%; each class asked for is "
    )
    here += "a pass of the network"
    return Claim(*text, here, verdicts.graded(-every, -SMALL, -1.0), len(last))
