"""The objective of co-training (paper, Eq. 1 without its stemming term; the vote loss is ours).

Of a batch, summed over the modules c of one decomposition::

    (1 − vote) · Σ_c CE_c  +  vote · N · vote loss  +  Σ_c stemming loss_c          vote = 0: the paper

CE_c is the cross-entropy of "this class" against "another". The vote loss, with d_c the log-odds of module c, is
−log softmax(d_1, …, d_N)[y]: the loss of the vote that recomposing asks for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def objective(log_odds: Tensor, labels: Tensor, classes: Tensor, vote: float, weights: Tensor | None = None) -> Tensor:
    """Return (1 − vote) · Σ_c CE_c + vote · C · vote loss of one decomposition on one batch, a scalar.

    `log_odds` [C, B], `labels` [B] int64, `classes` [C]. CE_c is a mean over the batch; written in log-odds, the
    cross-entropy of a module's two logits. `weights` [C, B]: of each image in each CE_c (`balanced`).
    The vote loss takes the images whose class is among `classes`. A label below 0 is of no class: "another" for all.
    """
    mine = labels[None, :] == classes[:, None]
    count = labels.numel()
    loss = log_odds.new_zeros(())
    if vote < 1.0:
        entropy = binary_cross_entropy_with_logits(log_odds, mine.to(log_odds.dtype), weights, reduction="sum")
        loss = loss + (1.0 - vote) * entropy / count
    if vote > 0.0:
        voters = mine.to(log_odds.dtype)
        votes = (torch.log_softmax(log_odds, dim=0) * voters).sum()
        loss = loss - vote * len(classes) * votes / count
    return loss


def gradient(log_odds: Tensor, labels: Tensor, classes: Tensor, vote: float, weights: Tensor | None = None) -> Tensor:
    """Return the gradient of `objective` in closed form, for R decompositions at once: [R, C, B].

    `log_odds` [R, C, B], `labels` [R, B], `weights` [R, C, B]. With σ the logistic function::

        dCE_c / dd_c        (σ(d_c) − [y = c]) / B
        dvote / dd_c        (softmax(d)_c − [y = c]) / B      where y is among the classes, else 0
    """
    mine = (labels[:, None, :] == classes[:, None]).to(log_odds.dtype)
    total = torch.zeros_like(log_odds)
    if vote < 1.0:
        entropy = log_odds.sigmoid() - mine
        total.add_(entropy if weights is None else entropy * weights, alpha=1.0 - vote)
    if vote > 0.0:
        votes = torch.softmax(log_odds, dim=1) * mine.sum(1, keepdim=True) - mine
        total.add_(votes, alpha=vote * len(classes))
    return total.div_(labels.shape[1])


def balancing_weights(labels: Tensor, classes: Tensor, frequency: Tensor) -> Tensor:
    """Return weights under which "this class" and "another" weigh half each: 1 / (2 · their share).

    `labels` [..., B] -> [..., C, B]. `frequency` [N]: each class's share of the training images.
    """
    share = frequency[classes][:, None]
    mine = labels[..., None, :] == classes[:, None]
    return torch.where(mine, 0.5 / share, 0.5 / (1 - share))


def class_frequency(labels: Tensor, num_classes: int) -> Tensor:
    """Return each class's share of `labels`, those of no class (below 0) among them: float [N]."""
    return torch.bincount(labels[labels >= 0], minlength=num_classes).float() / len(labels)
