"""Several processes, started as `torchrun` starts them: the masks of one, resuming, and a process that is killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import modlib
from modlib.engines.sharding import Shard, WorkerLost, _others_may_be_lost

WORKER = Path(__file__).with_name("sharded_worker.py")


def run(folder, *extra, processes=2):
    """Run the worker script under torchrun; return the finished process."""
    if not torch.distributed.is_available():
        pytest.skip("this build of torch has no torch.distributed")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*launch, str(WORKER), str(folder), *extra], capture_output=True, text=True, timeout=300, env=quiet
    )


def test_one_process_shares_with_nobody():
    shard, values = Shard(), torch.ones(3)
    assert (shard.share([4, 5, 6]), shard.sum(values).tolist(), shard.gather("a")) == ([4, 5, 6], [1, 1, 1], ["a"])
    assert Shard.here() == shard


def test_what_is_shared_out_comes_back_in_order():
    items = list(range(7))
    assert Shard(0, 3).join([Shard(rank, 3).share(items) for rank in range(3)]) == items
    assert [len(Shard(rank, 3).share(items)) for rank in range(3)] == [3, 2, 2]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process gives: the modules of the worker's decompositions."""
    folder = tmp_path_factory.mktemp("alone")
    finished = run(folder, processes=1)
    assert finished.returncode == 0, finished.stderr
    return folder


def same_files(a, b):
    """Say whether both folders hold the same modules, bit by bit (the header's order is left to the format)."""
    for name in ("plain.safetensors", "vote.safetensors", "shared.safetensors"):
        one, other = load_file(a / name), load_file(b / name)
        if one.keys() != other.keys() or not all(torch.equal(one[key], other[key]) for key in one):
            return False
    return True


def test_two_processes_give_the_masks_of_one(alone, tmp_path):
    """Five modules, so that the shares differ; batch normalisation; without vote, with it, and from one mask."""
    finished = run(tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert same_files(alone, tmp_path)
    assert not list(tmp_path.glob("*.pt")), "each process removes its own"


def test_a_killed_process_fails_the_run_and_it_goes_on_later(alone, tmp_path):
    finished = run(tmp_path, "kill")
    assert finished.returncode != 0
    assert "SIGKILL" in finished.stderr, "torchrun names the process that was killed"
    assert "WorkerLost: a process of this run has ended before its time" in finished.stderr, "and the other what to do"
    assert not (tmp_path / "plain.safetensors").exists()
    assert {path.name for path in tmp_path.glob("*.pt")} >= {"plain-epoch2-0of2.pt", "plain-epoch2-1of2.pt"}
    finished = run(tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "epochs of plain: [3, 4]" in finished.stdout, "the two epochs that were done are not done again"
    assert same_files(alone, tmp_path)


def test_a_lost_process_is_named_in_one_line(tmp_path):
    finished = run(tmp_path, "leave")
    assert finished.returncode != 0
    assert "WorkerLost: a process of this run has ended before its time" in finished.stderr


def test_what_cannot_be_shared_out_is_refused(tmp_path):
    finished = run(tmp_path, "refused")
    assert "ValueError: engine: 'sequential' runs in one process, there are 2" in finished.stdout
    assert "ValueError: classes: 1 modules for 2 processes" in finished.stdout
    assert "ValueError: engine: with a vote loss 'auto' is 'vectorised' in one process" in finished.stdout
    assert finished.stdout.count("ValueError: callback, checkpoint: all processes of a run need them, or none") == 2
    assert finished.stdout.count("ValueError: method: 'base' runs in one process") == 2
    assert (
        finished.stdout.count("ValueError: runs: the processes of this run differ in parent, recipe, seed or data") == 2
    )
    assert finished.stdout.count("ValueError: parent: SyncBatchNorm would mix the statistics of different modules") == 2


def test_the_checkpoint_of_other_processes_is_refused_not_left_lying(tmp_path):
    finished = run(tmp_path, "kill")
    assert finished.returncode != 0
    finished = run(tmp_path, processes=1)
    assert finished.returncode != 0
    assert "is of 2 processes, there are 1; go on with 2, or remove it" in finished.stderr
    for file in tmp_path.glob("*.pt"):
        file.rename(tmp_path / "plain.pt")
    finished = run(tmp_path)
    assert "is of 1 processes, there are 2; go on with 1, or remove it" in finished.stderr


def test_only_a_lost_process_is_called_one():
    with pytest.raises(WorkerLost, match="has ended before its time"), _others_may_be_lost():
        raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(RuntimeError, match=r"^out of memory$"), _others_may_be_lost():
        raise RuntimeError("out of memory")


def test_two_processes_record_a_panel_as_one_does(tmp_path):
    """Parent, trials and control: the first process writes, all read the same; only times differ."""
    folders = [tmp_path / str(processes) for processes in (1, 2)]
    for processes, folder in zip((1, 2), folders, strict=True):
        finished = run(folder, "panel", processes=processes)
        assert finished.returncode == 0, finished.stderr
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
    assert modlib.load(alone / "plain.safetensors", network()).classes == (0, 1, 2, 3, 4)
