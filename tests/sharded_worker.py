"""One process of `test_sharding.py`: FOLDER SCENARIO...; each works and says what it does in its part of FOLDER."""

import os
import signal
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

import modlib
from modlib.cotraining import Recipe, Run, cotrain_population
from modlib.engines import checkpoints


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)]
        return nn.Sequential(*layers).eval()


def toy():
    """80 training, 10 held-out and 20 test images of 4x4, five classes."""
    labels = torch.arange(110) % 5
    images = torch.randint(0, 128, (110, 4, 4), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    images[torch.arange(110), labels % 4] += 100
    return modlib.data.from_arrays(images[:90], labels[:90], images[90:], labels[90:], held_out=10, name="toy")


RECIPE = Recipe(k=0.3, alpha=50.0, epochs=4, batch_size=16, share_init=False)


def refused(folder):
    """Print the errors of an engine for one process, of fewer modules than processes, and of two that would differ."""
    voting, connected = replace(RECIPE, vote=0.5), nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    for engine, classes, parent, recipe in (
        ("sequential", None, network(), RECIPE),
        ("auto", (0,), network(), RECIPE),
        ("auto", None, connected, voting),
    ):
        try:
            cotrain_population([Run(parent, recipe, 0, classes)], toy(), engine=engine, device="cpu")
        except ValueError as error:
            print(f"ValueError: {error}")

    for changes, parent, options in (
        ({}, network(), {"callback": print if os.environ["RANK"] == "0" else None}),
        ({"method": "base", "base_class": 0}, network(), {}),
        ({}, modlib.zoo.parents.fc(1, 16, 6, 5, seed=int(os.environ["RANK"])), {}),
        ({}, nn.SyncBatchNorm.convert_sync_batchnorm(network()), {}),
    ):
        try:
            cotrain_population([Run(parent, replace(RECIPE, **changes), 0)], toy(), device="cpu", **options)
        except ValueError as error:
            print(f"ValueError: {error}")


def panel(folder):
    """Run a panel of Figure 4 on the toy, with its parent and its control, into `folder`."""
    from modlib.study import panels  # the study's packages take seconds to load, and only this scenario needs them
    from modlib.study.records import Store
    from modlib.zoo.datasets import STATISTICS, Scaling

    shown = panels.Panel(
        "digits", "wrn16_2", [0], parent_epochs=1, epochs=2, lr=0.1, batch_size=16, alphas=[1.0], precision="float32"
    )
    data = replace(toy(), name="digits", preprocess=Scaling(*STATISTICS["digits"]))
    panels.run(shown, data, Store.at(folder), "cpu")


def decompose(folder, ending=None):
    """Without vote, with it, and from one mask; the second process is ended in epoch 3 where an `ending` is given."""
    rank = int(os.environ["RANK"])
    vote, shared = {"vote": 0.8}, {"vote": 0.8, "share_init": True, "shared_epochs": 1}
    for name, changes in (("plain", {}), ("vote", vote), ("shared", shared)):
        seen = []

        def after_epoch(run, epoch, modules, seen=seen):
            seen.append(epoch)
            if epoch == 3 and rank == 1 and ending:
                ending()

        run, checkpoint = Run(network(), replace(RECIPE, **changes), 0), folder / f"{name}.pt"
        options = {"device": "cpu", "callback": after_epoch, "checkpoint": checkpoint}
        (modules,) = cotrain_population([run], toy(), **options)
        if rank == 0:
            print(f"epochs of {name}: {seen}")
            modules.save(folder / f"{name}.safetensors")
        checkpoints.remove(checkpoint)


def refused_checkpoint(folder):
    """Print the error of a decomposition that finds the checkpoint of another number of processes."""
    try:
        decompose(folder)
    except ValueError as error:
        print(f"ValueError: {error}")


SCENARIOS = {
    "decompose": decompose,
    "resume": decompose,
    "kill": partial(decompose, ending=lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "leave": partial(decompose, ending=lambda: os._exit(0)),
    "refused": refused,
    "refused_checkpoint": refused_checkpoint,
    "panel": panel,
}


def main(folder, *scenarios):
    torch.set_num_threads(1)
    for name in scenarios:
        part = folder / f"{name}-{os.environ['RANK']}.part"
        with part.open("w") as said, redirect_stdout(said):
            SCENARIOS[name](folder / name)
        part.rename(part.with_suffix(".txt"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
