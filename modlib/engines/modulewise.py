"""The engine for large networks of any architecture: one module after another passes over all images of an epoch.

The stemming loss pulls to the average of the epoch before, so within an epoch the modules need not meet. The device
holds the parent and one module at a time; the scores of the others wait in host memory. A step is a forward and a
backward pass of the masked network by autograd, then `modlib.engines.update`.

The vote loss does couple the modules. It takes the other modules' log-odds of an image from a table
[images, modules], which each module writes while it passes over the images and which all read in the next epoch: a
module sees the others as they were about one epoch ago. Images that the last epoch left out are looked up afresh.

With `torchrun` every process trains its share of the modules (`modlib.engines.sharding`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modlib import masking, objective
from modlib.data import Data
from modlib.engines import start
from modlib.engines.sharding import Shard
from modlib.engines.update import make_update, nesterov_step
from modlib.masking import MaskSet
from modlib.modules import Modules
from modlib.parent import Reweighted
from modlib.precision import autocast
from modlib.recipes import Run
from modlib.sources import Batch

Member = dict[str, Tensor]
"""A module that waits in host memory: what `Slot.tensors` names."""


@dataclass
class Table:
    """The latest log-odds of every image under every module, [images, modules], and the epoch they are of."""

    log_odds: Tensor
    epoch: Tensor

    @classmethod
    def empty(cls, images: int, modules: int, like: Tensor) -> Table:
        """Return a table in which no image has been looked up."""
        return cls(like.new_zeros(images, modules), torch.full((images,), -2, device=like.device))


class ModulewiseEngine(start.Started):
    """See the module's docstring; the interface is `modlib.engines.Engine`."""

    def __init__(self, runs: Sequence[Run], classes: tuple[int, ...], data: Data, device: torch.device) -> None:
        super().__init__(runs, classes, data, device)
        self.shard = Shard.here()
        self.own: list[int] = self.shard.share(range(len(classes)))
        self.slots = [
            self._make_slot(run, parent, weights, data.num_classes)
            for run, parent, weights in zip(runs, self.parents, self.weights_of, strict=True)
        ]
        self.members = [self._first_members(r, [classes[i] for i in self.own]) for r in range(len(runs))]
        like = self.slots[0].grafting
        self.tables = [Table.empty(len(self.labels), len(classes), like) for _ in runs] if self.recipe.vote else []

    def _make_slot(self, run: Run, parent: nn.Module, weights: Mapping[str, Tensor], num_logits: int) -> Slot:
        return Slot(run, parent, weights, num_logits)

    def _first_members(self, r: int, classes: Sequence[int]) -> list[Member]:
        """Return the modules of run r as they start; scores that all share are drawn once."""
        run, weights = self.runs[r], self.weights_of[r]
        shared = start.starting_scores(run, weights, classes[0]) if run.recipe.share_init else None
        return [self._first_member(r, c, shared or start.starting_scores(run, weights, c)) for c in classes]

    def _first_member(self, r: int, c: int, scores: Mapping[str, Tensor]) -> Member:
        run, slot = self.runs[r], self.slots[r]
        weight, bias = start.starting_grafting(run, c, self.data.num_classes, self.dtype)
        member = {name: torch.zeros_like(values, device="cpu") for name, values in slot.tensors().items()}
        member["grafting"] = torch.cat([weight, bias[:, None]], 1)
        for name, values in scores.items():
            member[f"scores/{name}"].copy_(values.view_as(member[f"scores/{name}"]))
        for name, values in slot.statistics.items():
            member[f"statistics/{name}"].copy_(values)
        return member

    @property
    def passes(self) -> int:
        return len(self.runs) * len(self.own)

    def train_epoch(self, orders: Tensor, epoch: int, average: dict[str, Tensor] | None) -> None:
        for r, slot in enumerate(self.slots):
            pull = None
            if average is not None:
                pull = {name: _row(values[r, 0]).to(self.device) for name, values in average.items()}
            order = orders[r].to(self.device)
            batches = self.batches(order)
            factor = start.stemming_factors(self.runs[r].recipe, self.weights_of[r], len(batches))
            slot.pull_to(pull, factor)
            with start.statistics_of_the_batch(slot.parent, self.recipe.norm):
                if self.recipe.vote:
                    self._look_up(r, order, epoch)
                written = self.tables[r].log_odds.clone() if self.recipe.vote else None
                for i, member in zip(self.own, self.members[r], strict=True):
                    slot.load(member)
                    self.train_module(r, i, batches, epoch, written)
                    slot.store(member)
            if written is not None:
                self.tables[r].log_odds = self._together(written)
                self.tables[r].epoch[torch.cat(batches)] = epoch

    def train_module(self, r: int, i: int, batches: Sequence[Tensor], epoch: int, written: Tensor | None) -> None:
        """Train module i of run r, the one in the slot, on all batches of an epoch."""
        slot, draw = self.slots[r], self.augmentation(r, epoch)
        for step, rows in enumerate(batches):
            batch = self.batch(rows, draw)
            logits = slot.logits(batch.inputs)
            log_odds = _log_odds(logits.detach(), slot.grafting)
            if written is not None:
                written[rows, i] = log_odds
            factor = self.recipe.rate_factor_at(epoch, step, len(batches))
            slot.step(logits, self._gradient(r, i, batch, log_odds), factor)

    def _gradient(self, r: int, i: int, batch: Batch, mine: Tensor) -> Tensor:
        """Return the gradient of the objective with respect to the log-odds [B] of module i on a batch."""
        labels = batch.labels
        weights = self.balancing_weights(labels)
        if not self.recipe.vote:
            own = None if weights is None else weights[None, i : i + 1]
            return objective.gradient(mine[None, None], labels[None], self.class_tensor[i : i + 1], 0.0, own)[0, 0]
        together = self.tables[r].log_odds[batch.rows].T.contiguous()
        together[i] = mine
        every = None if weights is None else weights[None]
        return objective.gradient(together[None], labels[None], self.class_tensor, self.recipe.vote, every)[0, i]

    @torch.no_grad()
    def _look_up(self, r: int, order: Tensor, epoch: int) -> None:
        """Bring the table up to date for those images of `order` that the last epoch left out."""
        table, slot = self.tables[r], self.slots[r]
        rows = order[table.epoch[order] < epoch - 1]
        if len(rows) == 1:  # a single image has no statistics: it takes another one along
            rows = torch.cat([rows, order[order != rows][:1]])
        together = epoch == 0 and self.runs[r].recipe.share_init  # one masked network with many grafting layers
        groups = [self.members[r]] if together else [[member] for member in self.members[r]]
        columns = iter(self.own)
        for group in groups if len(rows) else []:
            slot.load(group[0])
            grafting = torch.stack([member["grafting"] for member in group]).to(self.device)
            mine = [next(columns) for _ in group]
            for batch in self._all_of(rows):
                logits = slot.logits(self.batch(batch).inputs, keep_statistics=True)
                table.log_odds[batch[:, None], mine] = torch.stack([_log_odds(logits, g) for g in grafting], 1)
        table.log_odds = self._together(table.log_odds)

    def _all_of(self, rows: Tensor) -> list[Tensor]:
        """Return `rows` in batches; a last one of a single image, which has no statistics, joins the one before."""
        *batches, last = rows.split(self.recipe.batch_size)
        return [*batches[:-1], torch.cat([batches[-1], last])] if batches and len(last) == 1 else [*batches, last]

    def _together(self, log_odds: Tensor) -> Tensor:
        """Return log-odds [images, modules] whose columns come from the process that trains the module."""
        if self.shard.size > 1:
            others = [i for i in range(len(self.classes)) if i not in self.own]
            log_odds[:, others] = 0.0
        return self.shard.sum(log_odds)

    def average(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, shape in ((name, weight.shape) for name, weight in self.weights_of[0].items()):
            rows = [self._average(r, f"scores/{name}").view(shape) for r in range(len(self.runs))]
            found[name] = torch.stack(rows)[:, None]
        return found

    def _average(self, r: int, name: str) -> Tensor:
        """Return the mean over all modules of what is ranked, summed in float64: the same however they are shared out.

        As in `stemming.average_scores`, what is summed are differences to the first module's where they are at hand.
        """
        ranked = (masking.ranked(m[name].to(self.device), self.recipe.scores).double() for m in self.members[r])
        like = self.slots[r].updates[name.removeprefix("scores/")].scores
        first = torch.zeros_like(like, dtype=torch.float64)
        if self.shard.size == 1:
            first = masking.ranked(self.members[r][0][name].to(self.device), self.recipe.scores).double()
        total = torch.zeros_like(first)
        for values in ranked:
            total += values - first
        return (first + self.shard.sum(total) / len(self.classes)).to(like.dtype)

    def ranked(self) -> dict[str, Tensor]:
        return {
            name: torch.stack(
                [masking.ranked(self._scores(r, name), self.recipe.scores) for r in range(len(self.runs))]
            )
            for name in self.weights_of[0]
        }

    def _scores(self, r: int, name: str) -> Tensor:
        shape = self.weights_of[r][name].shape
        return torch.stack([member[f"scores/{name}"].view(shape) for member in self.members[r]])

    def modules(self) -> list[Modules]:
        return [self._modules(r) for r in range(len(self.runs))]

    def _modules(self, r: int) -> Modules:
        """Return the modules of one run; their masks lie in host memory, as do their scores (of one process only)."""
        slot = self.slots[r]
        own = []
        for member in self.members[r]:
            slot.load(member)
            small = {n: v.clone() for n, v in member.items() if n == "grafting" or n.startswith("statistics/")}
            own.append((slot.masks(), small))
        every = self.shard.join(self.shard.gather(own))
        grafting = torch.stack([small["grafting"] for _, small in every]).to(self.device)
        return Modules(
            parent=self.parents[r],
            masks=MaskSet({n: torch.stack([masks[n] for masks, _ in every]) for n in slot.weights}, self.classes),
            grafting_weight=grafting[..., :-1].clone(),
            grafting_bias=grafting[..., -1].clone(),
            statistics={
                name: torch.stack([small[f"statistics/{name}"] for _, small in every]).to(self.device)
                for name in slot.statistics
            },
            scores={name: self._scores(r, name) for name in slot.weights} if self.shard.size == 1 else None,
        )

    def state(self) -> dict[str, Any]:
        return {"members": self.members, "tables": [vars(table) for table in self.tables]}

    def load_state(self, state: dict[str, Any]) -> None:
        self.members = state["members"]
        self.tables = [Table(**{name: t.to(self.device) for name, t in saved.items()}) for saved in state["tables"]]


class Slot:
    """The module on the device: its scores, masked weights, grafting layer and statistics, and what moves them."""

    def __init__(self, run: Run, parent: nn.Module, weights: Mapping[str, Tensor], num_logits: int) -> None:
        self.recipe, self.parent, self.weights = run.recipe, parent, weights
        self.call = Reweighted(parent)
        keep = self.recipe.kept_edges(weights)
        self.updates = {
            name: make_update(torch.zeros_like(_row(w)), _row(w), torch.tensor([keep[name]]), self.recipe)
            for name, w in weights.items()
        }
        # what autograd sees: the memory that the updates write W ⊙ M to, in the shape of the weights
        self.masked = {name: u.masked.view_as(weights[name]).requires_grad_() for name, u in self.updates.items()}
        some = next(iter(weights.values()))
        self.grafting = some.new_zeros(2, num_logits + 1)  # weights, and the bias in the last column
        self.grafting_momentum = torch.zeros_like(self.grafting)
        self.statistics = start.starting_statistics(run, parent)
        self.pull: dict[str, Tensor] | None = None
        self.factor: dict[str, Tensor] = {}

    def tensors(self) -> Member:
        """Return what the next step depends on, by name: the slot's own memory."""
        found = {"grafting": self.grafting, "grafting_momentum": self.grafting_momentum}
        for name, update in self.updates.items():
            found |= {f"{part}/{name}": values for part, values in update.state().items()}
        return found | {f"statistics/{name}": values for name, values in self.statistics.items()}

    @torch.no_grad()
    def load(self, member: Member) -> None:
        """Put a module into the slot."""
        for name, values in self.tensors().items():
            if not name.startswith(("scores/", "momentum/")):
                values.copy_(member[name])
        for name, update in self.updates.items():
            update.load_state({part: member[f"{part}/{name}"] for part in ("scores", "momentum")})

    @torch.no_grad()
    def store(self, member: Member) -> None:
        """Write the module in the slot back to host memory."""
        for name, values in self.tensors().items():
            member[name].copy_(values)

    def masks(self) -> dict[str, Tensor]:
        """Return the masks of the module in the slot, bool, in host memory."""
        return {name: update.mask().view_as(self.weights[name]).cpu() for name, update in self.updates.items()}

    def pull_to(self, average: dict[str, Tensor] | None, factor: dict[str, float]) -> None:
        """Set what the stemming loss pulls to in the next steps (None: nothing), and its factor by layer."""
        self.pull = average
        self.factor = {
            name: update.scores.new_full((1, 1, 1, 1), factor[name]) for name, update in self.updates.items()
        }

    def logits(self, inputs: Any, keep_statistics: bool = False) -> Tensor:
        """Return the masked parent's logits [B, N]; its running statistics follow the batch unless they are kept."""
        own = {name: s.clone() for name, s in self.statistics.items()} if keep_statistics else self.statistics
        with autocast(self.grafting.device, self.recipe.precision):
            logits = self.call({**self.masked, **own}, inputs)
        return logits.to(self.grafting.dtype)

    def step(self, logits: Tensor, of_log_odds: Tensor, rate_factor: float) -> None:
        """Take a step from the logits [B, N] of a batch and dL/d(log-odds) [B]."""
        rates = rate_factor * self.recipe.lr, rate_factor * self.recipe.grafting_rate
        self.step_at(rates, logits, of_log_odds)

    def step_at(self, rates: tuple[float, float] | tuple[Tensor, Tensor], logits: Tensor, of_log_odds: Tensor) -> None:
        """Take a step at the rates of scores and grafting layer."""
        difference = self.grafting[1] - self.grafting[0]
        of_logits = of_log_odds[:, None] * difference[:-1]
        gradients = torch.autograd.grad(logits, list(self.masked.values()), of_logits, allow_unused=True)
        for (name, update), gradient in zip(self.updates.items(), _apart(gradients), strict=True):
            # a weight that had no part in the logits has the gradient 0
            g = torch.zeros_like(update.scores) if gradient is None else gradient.reshape(update.scores.shape)
            pull = None if self.pull is None else self.pull[name]
            update.step(g, pull, self.factor[name], rates[0])
        of_difference = torch.cat([of_log_odds @ logits.detach(), of_log_odds.sum()[None]])
        of_grafting = torch.stack([-of_difference, of_difference])
        nesterov_step(self.grafting, of_grafting, self.grafting_momentum, rates[1], self.recipe)


def _apart(gradients: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Return gradients that can each be written to: autograd may hand out one for two weights, or a broadcast one."""
    seen: set[int] = set()
    found: list[Tensor | None] = []
    for gradient in gradients:
        memory = 0 if gradient is None else gradient.untyped_storage().data_ptr()
        shared = gradient is not None and (memory in seen or 0 in gradient.stride())
        found.append(gradient.clone() if gradient is not None and shared else gradient)
        seen.add(memory)
    return found


def _row(weight: Tensor) -> Tensor:
    """Return a weight as the updates take it, one run of one module: [1, 1, 1, n]."""
    return weight.detach().reshape(1, 1, 1, -1)


def _log_odds(logits: Tensor, grafting: Tensor) -> Tensor:
    """Return the log-odds [B] of logits [B, N]: linear in them, "this class" minus "another"."""
    difference = grafting[1] - grafting[0]
    return logits @ difference[:-1] + difference[-1]
