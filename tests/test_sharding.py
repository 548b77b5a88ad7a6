"""Several processes, started as `torchrun` starts them: the masks of one, resuming, and a process that is killed."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import modlib
from modlib.engines.sharding import Shard, WorkerLost, _others_may_be_lost

WORKER = Path(__file__).with_name("sharded_worker.py")


@dataclass(frozen=True)
class Launch:
    """A finished launch of the worker script: one process group for several scenarios, each with a part of `folder`."""

    folder: Path
    finished: subprocess.CompletedProcess
    processes: int

    def said(self, scenario):
        """What each process printed in a scenario that none of them broke off."""
        files = [self.folder / f"{scenario}-{rank}.txt" for rank in range(self.processes)]
        assert all(file.exists() for file in files), f"{scenario} was broken off: {self.finished.stderr}"
        return [file.read_text() for file in files]


def launch(folder, *scenarios, processes=2):
    """Run the worker script under torchrun, as long as it takes."""
    if not torch.distributed.is_available():
        pytest.skip("this build of torch has no torch.distributed")
    for scenario in scenarios:
        (folder / scenario).mkdir(exist_ok=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*torchrun, str(WORKER), str(folder), *scenarios]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, env=quiet)
    return Launch(folder, finished, processes)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Two processes, one of which is killed; the others of these fixtures copy what it leaves."""
    return launch(tmp_path_factory.mktemp("killed"), "kill")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, killed):
    """What one process gives."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(killed.folder / "kill", folder / "refused_checkpoint")
    return launch(folder, "decompose", "refused_checkpoint", "panel", processes=1)


@pytest.fixture(scope="module")
def together(tmp_path_factory, killed):
    """What two processes give."""
    folder = tmp_path_factory.mktemp("together")
    for scenario in ("resume", "refused_checkpoint"):
        shutil.copytree(killed.folder / "kill", folder / scenario)
    for file in (folder / "refused_checkpoint").glob("*.pt"):
        file.rename(file.with_name("plain.pt"))  # as one process would have left it
    return launch(folder, "decompose", "resume", "refused_checkpoint", "refused", "panel")


def test_one_process_shares_with_nobody():
    shard, values = Shard(), torch.ones(3)
    assert (shard.share([4, 5, 6]), shard.sum(values).tolist(), shard.gather("a")) == ([4, 5, 6], [1, 1, 1], ["a"])
    assert Shard.here() == shard


def test_what_is_shared_out_comes_back_in_order():
    items = list(range(7))
    assert Shard(0, 3).join([Shard(rank, 3).share(items) for rank in range(3)]) == items
    assert [len(Shard(rank, 3).share(items)) for rank in range(3)] == [3, 2, 2]


def same_files(a, b):
    """Say whether both folders hold the same modules, bit by bit (the header's order is left to the format)."""
    for name in ("plain.safetensors", "vote.safetensors", "shared.safetensors"):
        one, other = load_file(a / name), load_file(b / name)
        if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
            return False
    return True


def test_launches_that_lose_nobody_end_well(alone, together):
    assert alone.finished.returncode == 0, alone.finished.stderr
    assert together.finished.returncode == 0, together.finished.stderr


def test_two_processes_give_the_masks_of_one(alone, together):
    """Five modules, so that the shares differ; batch normalisation; without vote, with it, and from one mask."""
    alone.said("decompose")
    together.said("decompose")
    assert same_files(alone.folder / "decompose", together.folder / "decompose")
    assert not list((together.folder / "decompose").glob("*.pt")), "each process removes its own"


def test_a_killed_process_fails_the_run_and_it_goes_on_later(alone, together, killed):
    assert killed.finished.returncode != 0
    stderr = killed.finished.stderr
    assert "SIGKILL" in stderr, "torchrun names the process that was killed"
    assert "WorkerLost: a process of this run has ended before its time" in stderr, "and the other what to do"
    assert not (killed.folder / "kill" / "plain.safetensors").exists()
    left = {path.name for path in (killed.folder / "kill").glob("*.pt")}
    assert left >= {"plain-epoch2-0of2.pt", "plain-epoch2-1of2.pt"}
    first, _ = together.said("resume")
    assert "epochs of plain: [3, 4]" in first, "the two epochs that were done are not done again"
    assert same_files(alone.folder / "decompose", together.folder / "resume")


def test_a_lost_process_is_named_in_one_line(tmp_path):
    finished = launch(tmp_path, "leave").finished
    assert finished.returncode != 0
    assert "WorkerLost: a process of this run has ended before its time" in finished.stderr


def test_what_cannot_be_shared_out_is_refused(together):
    for said in together.said("refused"):
        assert "ValueError: engine: 'sequential' runs in one process, there are 2" in said
        assert "ValueError: classes: 1 modules for 2 processes" in said
        assert "ValueError: engine: with a vote loss 'auto' is 'vectorised' in one process" in said
        assert said.count("ValueError: callback, checkpoint: all processes of a run need them, or none") == 1
        assert said.count("ValueError: method: 'base' runs in one process") == 1
        assert said.count("ValueError: runs: the processes of this run differ in parent, recipe, seed or data") == 1
        assert said.count("ValueError: parent: SyncBatchNorm would mix the statistics of different modules") == 1


def test_the_checkpoint_of_other_processes_is_refused_not_left_lying(alone, together):
    (said,) = alone.said("refused_checkpoint")
    assert "is of 2 processes, there are 1; go on with 2, or remove it" in said
    for said in together.said("refused_checkpoint"):
        assert "is of 1 processes, there are 2; go on with 1, or remove it" in said


def test_only_a_lost_process_is_called_one():
    with pytest.raises(WorkerLost, match="has ended before its time"), _others_may_be_lost():
        raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(RuntimeError, match=r"^out of memory$"), _others_may_be_lost():
        raise RuntimeError("out of memory")


def test_two_processes_record_a_panel_as_one_does(alone, together):
    """Parent, trials and control: the first process writes, all read the same; only times differ."""
    for launched in (alone, together):
        launched.said("panel")
    folders = [launched.folder / "panel" for launched in (alone, together)]
    one, two = ({file.relative_to(folder): file for file in folder.rglob("*.*")} for folder in folders)
    assert one.keys() == two.keys()
    assert {path.parts[0] for path in one} == {"parents", "trials", "modules", "panels"}
    for name in one:
        if name.suffix == ".json":
            assert json.loads(one[name].read_text())["rows"] == json.loads(two[name].read_text())["rows"]


def test_the_file_is_of_the_network_that_was_decomposed(alone):
    sys.path.insert(0, str(WORKER.parent))
    try:
        from sharded_worker import network
    finally:
        sys.path.pop(0)
    assert modlib.load(alone.folder / "decompose" / "plain.safetensors", network()).classes == (0, 1, 2, 3, 4)
