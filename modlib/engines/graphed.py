"""The modulewise engine for a GPU that is faster than its steps can be launched.

A step of a module on a batch of small images is close to a thousand kernels of a few microseconds; launching them one
by one takes several times longer than they do. Here a step is recorded once, as two CUDA graphs, and replayed: the
forward pass, and what follows from the gradient of the log-odds (backward pass and `modlib.engines.update`). The
objective in between stays as it is.

What a parent does outside the GPU, such as drawing a number in Python, happens when a step is recorded, not when it is
replayed. The parents of this book do nothing there; others have to ask for this engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modlib.engines.modulewise import ModulewiseEngine, Slot
from modlib.recipes import Run

WARM_UP = 3
"""Steps on a stream of their own before one is recorded, as torch asks for: libraries choose their kernels there."""


class GraphedEngine(ModulewiseEngine):
    """See the module's docstring; the interface is `modlib.engines.Engine`."""

    def _make_slot(self, run: Run, parent: nn.Module, weights: Mapping[str, Tensor], num_logits: int) -> Slot:
        return RecordedSlot(run, parent, weights, num_logits)


@dataclass
class Recording:
    """A step recorded: two graphs, and the memory that they read from and write to."""

    inputs: Tensor
    logits: Tensor
    of_log_odds: Tensor
    forward: torch.cuda.CUDAGraph
    backward: torch.cuda.CUDAGraph


class RecordedSlot(Slot):
    """A slot whose steps are replayed: one recording for every shape of a batch."""

    def __init__(self, run: Run, parent: nn.Module, weights: Mapping[str, Tensor], num_logits: int) -> None:
        super().__init__(run, parent, weights, num_logits)
        self.rates = (self.grafting.new_zeros(()), self.grafting.new_zeros(()))
        self.recordings: dict[torch.Size, Recording] = {}
        self.average: dict[str, Tensor] = {}

    def pull_to(self, average: dict[str, Tensor] | None, factor: dict[str, float]) -> None:
        """As in `Slot`, in the memory that recorded steps read from."""
        earlier = self.factor
        if (average is None) != (self.pull is None):
            self.recordings.clear()  # a step with stemming is another
        super().pull_to(average, factor)
        for name, values in earlier.items():
            self.factor[name] = values.copy_(self.factor[name])
        if average is not None:
            self.average = self.average or {name: torch.empty_like(values) for name, values in average.items()}
            for name, values in self.average.items():
                values.copy_(average[name])
            self.pull = self.average

    def logits(self, inputs: Tensor, keep_statistics: bool = False) -> Tensor:
        """As in `Slot`; where a step follows, the logits lie in memory that the next step writes over."""
        if keep_statistics:
            return super().logits(inputs, keep_statistics=True)
        recording = self._recording(inputs)
        recording.inputs.copy_(inputs)
        recording.forward.replay()
        return recording.logits

    def step(self, logits: Tensor, of_log_odds: Tensor, rate_factor: float) -> None:
        """Take the step of the last call of `logits`."""
        recording = next(r for r in self.recordings.values() if r.logits is logits)
        recording.of_log_odds.copy_(of_log_odds)
        self.rates[0].fill_(rate_factor * self.recipe.lr)
        self.rates[1].fill_(rate_factor * self.recipe.grafting_rate)
        recording.backward.replay()

    def _recording(self, inputs: Tensor) -> Recording:
        if inputs.shape not in self.recordings:
            try:
                self.recordings[inputs.shape] = self._record(inputs)
            except RuntimeError as error:
                raise ValueError(
                    f"engine: 'graphed' cannot record a step of this parent ({error}); use 'modulewise'"
                ) from error
        return self.recordings[inputs.shape]

    def _record(self, inputs: Tensor) -> Recording:
        """Record a step; the module in the slot stays what it is."""
        before = {name: values.clone() for name, values in self.tensors().items()}
        inputs, of_log_odds = inputs.clone(), self.grafting.new_zeros(len(inputs))
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs.device):
            aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):  # left again also where recording fails
                for _ in range(WARM_UP):
                    self.step_at(self.rates, super().logits(inputs), of_log_odds)
                with torch.cuda.graph(forward, stream=aside):
                    logits = super().logits(inputs)
                with torch.cuda.graph(backward, pool=forward.pool(), stream=aside):
                    self.step_at(self.rates, logits, of_log_odds)
            here.wait_stream(aside)
        self.load(before)
        return Recording(inputs, logits.detach(), of_log_odds, forward, backward)
