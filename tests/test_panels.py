"""Panels of Figure 4, on a toy: what runs, what is kept, and what goes on."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import modlib
from modlib import masking, metrics, shared_mask
from modlib.decomposers import SharedMask
from modlib.decomposers.fixed_masks import masked
from modlib.study import cli as command_line
from modlib.study import panels, trials
from modlib.study.pages import augmentation
from modlib.study.panels import Panel
from modlib.study.records import Store
from modlib.study.trials import is_done
from modlib.zoo import datasets, training

PANEL = Panel(
    "digits", "wrn16_2", [0], parent_epochs=1, epochs=1, lr=0.1, images_per_epoch=32, batch_size=16,
    alphas=[0.0], voting=[0.1], measured_images=9, final_images=12, precision="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def three():
    """The digits 0, 1 and 2: 60 training, 12 held-out and 18 test images."""
    digits = modlib.zoo.datasets.load("digits")
    images, labels = digits.train_images, digits.train_labels
    few = torch.cat([(labels == c).nonzero()[:30, 0] for c in range(3)])
    few = few[torch.randperm(90, generator=torch.Generator().manual_seed(0))]
    images, labels = images[few], labels[few]
    parts = (images[:72], labels[:72], images[72:], labels[72:], digits.preprocess)
    return modlib.data.from_arrays(*parts, held_out=12, name="digits")


@pytest.fixture(scope="module")
def store(three, tmp_path_factory):
    """The store of a panel that has been run."""
    made = Store.at(tmp_path_factory.mktemp("panel"))
    panels.run(PANEL, three, made, "cpu")
    return made


def test_settings_and_trials():
    panel = replace(PANEL, alphas=[0, 1], scale_free=[0.5], voting=[0.25], seeds=[3, 4], vote=0.7)
    recipes = panel.settings()
    assert list(recipes) == ["α = 0", "α = 1", "α = 0.5, scale-free", "α = 0.25, scale-free, vote"]
    assert [r.alpha for r in recipes.values()] == [0.0, 1.0, 0.5, 0.25]
    assert [r.reduction for r in recipes.values()] == ["total", "total", "scale_free", "scale_free"]
    assert [r.vote for r in recipes.values()] == [0.0, 0.0, 0.0, 0.7]
    trials = panel.trials()
    assert {name: [t.seed for t in of_setting] for name, of_setting in trials.items()} == {
        name: [3, 4] for name in recipes
    }
    assert {t.parent_recipe for of_setting in trials.values() for t in of_setting} == {"ours"}


def test_the_settings_of_eq_1_may_have_a_rate_of_their_own(store, three):
    """The recipes and records of all others stay what they are."""
    panel = replace(PANEL, scale_free=[0.5], voting=[0.25], variants={"LAMP": {"allocation": "lamp"}})
    own = replace(panel, alphas_lr=3.0)
    settings, before = own.settings(), panel.settings()
    assert settings.pop("LAMP") == before.pop("LAMP")
    assert settings == {name: replace(recipe, lr=3.0) for name, recipe in before.items()}
    assert own.control_recipes() == panel.control_recipes()
    keys = [panels.shared_mask(p, 0, three, store, "cpu").parameters for p in (own, panel)]
    assert keys[0] == keys[1]


def test_variants_and_controls_change_the_recipe_at_alpha_0():
    lamp = {"allocation": "lamp", "k": 0.2}
    panel = replace(PANEL, variants={"LAMP": lamp | {"alpha": 2}}, controls={"shared mask": {}, "other": lamp})
    plain, made = panel.recipe(0.0), panel.settings()["LAMP"]
    assert made == replace(plain, allocation="lamp", k=0.2, alpha=2)
    assert replace(panel, tried={"slow": {"lr": 0.01}}, seeds=[3, 4]).tried_trials() == {
        "slow": [replace(panel.trials()["α = 0"][0], seed=3, recipe=replace(plain, lr=0.01))]
    }
    assert panel.control_recipes() == {
        "shared mask": replace(plain, vote=0.9),
        "other": replace(plain, vote=0.9, allocation="lamp", k=0.2),
    }


def test_a_control_of_other_settings_is_another_record(store, three):
    plain = panels.shared_mask(PANEL, 0, three, store)
    panel = replace(PANEL, controls={"shared mask": {}, "shared mask, LAMP": {"allocation": "lamp", "k": 0.3}})
    other = panels.shared_mask(panel, 0, three, store, "cpu", "shared mask, LAMP")
    assert plain == panels.shared_mask(panel, 0, three, store)
    assert plain.rows[0]["density"] == pytest.approx(0.1, abs=1e-3)
    assert other.rows[0]["density"] == pytest.approx(0.3, abs=1e-3)


def test_a_control_that_was_stopped_while_it_was_measured_is_not_trained_again(three, tmp_path, store, monkeypatch):
    own, expected = Store.at(tmp_path), panels.shared_mask(PANEL, 0, three, store, "cpu")
    shutil.copytree(store.folder / "parents", tmp_path / "parents")
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "subset_curve", raising(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            panels.shared_mask(PANEL, 0, three, own, "cpu")
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    monkeypatch.setattr(shared_mask, "objective", raising(AssertionError))  # no step is taken
    assert panels.shared_mask(PANEL, 0, three, own, "cpu").rows == expected.rows
    assert not list((tmp_path / "checkpoints").iterdir())


def raising(error):
    """Return a function that raises."""

    def stop(*_, **__):
        raise error

    return stop


def test_tried_controls_are_run_for_the_first_seed(three, store):
    panel = replace(PANEL, seeds=[0, 1], tried_controls={"slow": {"lr": 0.01}})
    assert panel.control_runs() == [("slow", 0), ("shared mask", 0), ("shared mask", 1)]
    assert panel.control_recipes()["slow"] == replace(panel.control_recipes()["shared mask"], lr=0.01)
    panels.run(replace(panel, seeds=[0]), three, store, "cpu")
    kept = sorted(path.name.rsplit("-", 1)[0] for path in (store.folder / "panels").iterdir())
    assert [name for name in kept if "slow" in name] == ["digits-wrn16_2-slow-seed0"]


def test_a_control_that_diverges_is_recorded_as_failed(three, store):
    panel = replace(PANEL, tried_controls={"wild": {"lr": 1e30}})
    record = panels.shared_mask(panel, 0, three, store, "cpu", "wild")
    (row,) = record.rows
    assert row["seed"] == 0
    assert "diverged in the epochs of one mask: lower lr" in row["failed"]
    assert panels.shared_mask(panel, 0, three, store, "cpu", "wild") == record


def test_an_engine_is_refused_before_any_work(three, tmp_path):
    with pytest.raises(ValueError, match="engine: 'graphed' records CUDA graphs, the device is cpu"):
        panels.run(PANEL, three, Store.at(tmp_path), "cpu", "graphed")
    assert not list(tmp_path.iterdir())


def test_before_training_masks_by_magnitude_and_takes_the_statistics_anew(store, three, monkeypatch):
    measured, accuracy = [], training.accuracy

    def watched(network, *options):
        measured.append(network)
        return accuracy(network, *options)

    monkeypatch.setattr(training, "accuracy", watched)
    panel = replace(PANEL, shares=[0.3, 1.0])
    record = panels.before_training(panel, three, store, images=50, device="cpu")
    assert [(r["allocation"], r["k"]) for r in record.rows] == [
        ("all", 1.0), ("uniform", 0.3), ("uniform", 1.0), ("lamp", 0.3), ("lamp", 1.0),
    ]  # fmt: skip
    parent = trials.trained_parent(three, "wrn16_2", 0, 1, store, "ours")
    assert record.rows[0]["held_out_accuracy"] == pytest.approx(training.accuracy(parent, three, "held_out"), abs=1e-6)
    weights = masking.maskable_parameters(parent)
    expected = masking.kept_edges(0.3, weights, "lamp")
    assert record.rows[3]["kept_by_layer"] == pytest.approx(
        {name: expected[name] / weight.numel() for name, weight in weights.items()}, abs=1e-6
    )
    keep = masking.keep_counts(0.3, masking.sizes(weights))
    largest = {n: masking.top_k_mask(w.abs().flatten(), keep[n]).view_as(w) for n, w in weights.items()}
    network = masked(parent, largest)
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    with torch.no_grad():
        network(three.inputs(three.train_images[:50]))
    assert record.rows[1]["held_out_accuracy"] == pytest.approx(
        training.accuracy(network.eval(), three, "held_out"), abs=1e-6
    )
    torch.testing.assert_close(measured[1].state_dict(), network.state_dict())
    assert panels.before_training(panel, three, store, images=50, device="cpu") == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images_per_epoch": 61}, r"images_per_epoch: 61 \(α = 0\), digits has 60"),
        ({"tried": {"more": {"images_per_epoch": 61}}}, r"images_per_epoch: 61 \(more\), digits has 60"),
        ({"final_images": 13}, "final_images: 13, digits has 12 images in held_out"),
        ({"measured_images": 1}, r"measured_images: the first 1 of held_out have none of the classes"),
    ],
)
def test_images_that_are_not_there_are_refused_before_any_work(three, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        panels.run(replace(PANEL, **changes), three, Store.at(tmp_path), "cpu")
    assert not list(tmp_path.iterdir())


def test_a_panel_keeps_its_trials_parent_and_control(store, three):
    assert panels.describe(PANEL, store).startswith("digits wrn16_2 (full size): 2 of 2 trials are there")
    found = {path.parent.name for path in store.folder.rglob("*") if path.is_file()}
    assert found == {"trials", "parents", "modules", "panels"}
    (record,) = trials.run_trials(PANEL.trials()["α = 0"], three, store)
    held_out, test = record.rows
    assert (held_out["split"], held_out["images"], test["split"], test["images"]) == ("held_out", 12, "test", 12)
    assert [row["classes"] for row in test["subsets"]] == [2, 3]
    assert "subsets" not in held_out


def test_the_curve_of_a_trial_is_that_of_its_modules(store, three):
    """The last row again, from the kept modules: the first 12 test images."""
    (trial,) = PANEL.trials()["α = 0.1, scale-free, vote"]
    (record,) = trials.run_trials([trial], three, store)
    modules = trials.trial_modules(trial, three, store)
    odds = modules.log_odds(three.inputs(three.test_images[:12]))
    logits, labels = training.logits(modules.parent, three, "test")
    curve = metrics.subset_curve(odds, logits[:12], labels[:12], modules.masks, 0)
    for row, expected in zip(record.rows[-1]["subsets"], curve, strict=True):
        assert row == pytest.approx(expected, abs=1e-6)


def test_what_is_there_is_not_run_again(store, three, monkeypatch):
    def must_not_run(*args, **options):
        raise AssertionError

    for owner, name in ((trials.cotraining, "cotrain_population"), (SharedMask, "decompose"), (training, "train")):
        monkeypatch.setattr(owner, name, must_not_run)
    panels.run(PANEL, three, store, "cpu")
    more = replace(PANEL, alphas=[0.0, 1.0], scale_free=[0.2])
    assert panels.describe(replace(more, reduced="much"), store).startswith("digits wrn16_2 (reduced: much): 2 of 4")
    assert len(panels.shared_mask(more, 0, three, store).rows) == 2, "the control does not depend on the settings"


def test_the_shared_mask_has_statistics_of_its_own(store, three):
    (trial,) = PANEL.trials()["α = 0"]
    parent = trials.trained_parent(three, trial.model, 0, 1, store, "ours")
    before = {name: buffer.clone() for name, buffer in parent.named_buffers()}
    made = SharedMask(PANEL.recipe(0.0, vote=0.9)).decompose(parent, three, seed=0)
    assert made.masks.mean_jaccard() == 1.0
    name = next(iter(made.statistics))
    assert not torch.equal(made.statistics[name][0], before[name])
    assert all(torch.equal(buffer, before[name]) for name, buffer in parent.named_buffers())
    inputs = three.inputs(three.test_images)
    assert made.passes == 1
    alone = torch.cat([made.recompose([c]).log_odds(inputs) for c in range(3)], 1)
    torch.testing.assert_close(made.log_odds(inputs), alone)


def test_panels_by_name(tmp_path):
    file = tmp_path / "figure4.yml"
    small = "{dataset: digits, model: wrn16_2, seeds: [0], parent_epochs: 1, epochs: 1, lr: 0.1}"
    file.write_text(f"panels: [{small}]")
    assert panels.named("digits", "wrn16_2", file).epochs == 1
    smaller = small.replace("digits", "cifar10").replace("wrn16_2", "vgg16")
    file.write_text(f"panels: [{small}, {smaller}]")
    assert panels.named("cifar10", "vgg16", file).epochs == 1
    assert panels.named("cifar10", "vgg16", file, full=True) == panels.FULL["cifar10 vgg16"]
    file.write_text(f"panels: [{small}]")
    assert panels.named("cifar10", "vgg16", file) == panels.FULL["cifar10 vgg16"]
    with pytest.raises(ValueError, match="panel: no panel mnist vgg16; there are"):
        panels.named("mnist", "vgg16", file)
    with pytest.raises(ValueError, match="panel: no panel digits wrn16_2 at full size"):
        panels.named("digits", "wrn16_2", file, full=True)
    as_written = Panel.of(yaml.safe_load(yaml.safe_dump({**vars(panels.FULL["svhn resnet50"]), "seeds": [*range(5)]})))
    assert as_written == panels.FULL["svhn resnet50"]
    assert panels.named("svhn", "resnet50", tmp_path / "not_there.yml") == panels.FULL["svhn resnet50"]


def test_bad_panels_are_refused(capsys):
    with pytest.raises(ValueError, match=r"panels: unknown settings \['rate'\]"):
        Panel.of({"dataset": "cifar10", "rate": 1})
    with pytest.raises(ValueError, match="model must be one of"):
        replace(PANEL, model="fc1")
    for changes, message in [
        ({"seeds": []}, "seeds: empty"),
        ({"seeds": [-1]}, "seeds must be at least 0"),
        ({"parent_epochs": 0}, "parent_epochs must be at least 1"),
        ({"alphas": [-1.0]}, "alpha must be"),
        ({"alphas_lr": 0}, "alphas_lr must be"),
        ({"variants": {"a": {"allocation": "erk"}}}, "allocation must be one of"),
        ({"controls": {"a": {"rate": 1}}}, r"controls\['a'\]: a panel cannot change \['rate'\]"),
        ({"variants": {"a": {"epochs": 9}}}, r"variants\['a'\]: a panel cannot change \['epochs'\]"),
        ({"variants": {"α = 0": {"k": 0.2}}}, r"variants: \['α = 0'\] twice"),
        ({"tried": {"a/b": {}}}, "no slash in a name"),
        ({"tried_controls": {"shared mask": {"lr": 1.0}}}, r"variants: \['shared mask'\] twice"),
        ({"controls": {"a": {"alpha": 1.0}}}, r"controls\['a'\]: a panel cannot change \['alpha'\]"),
        ({"tried_controls": {"a": {"method": "base"}}}, r"tried_controls\['a'\]: a panel cannot change \['method'\]"),
        ({"shares": [0.0]}, "shares must be in"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(PANEL, **changes)
    assert command_line.main(["panel", "cifar10", "lenet"]) == 2
    assert "no panel cifar10 lenet" in capsys.readouterr().err


@pytest.mark.parametrize(("fast", "said"), [("float32", True), ("bfloat16", False)])
def test_slow_bfloat16_is_said_before_it_is_waited_for(fast, said, three, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(panels, "run", lambda *_: None)
    monkeypatch.setattr(datasets, "load", lambda _: three)
    monkeypatch.setattr(training, "fast_precision", lambda device: fast)
    assert command_line.main(["panel", "cifar10", "vgg16", "--full", "--results", str(tmp_path)]) == 0
    assert ("bfloat16 is emulated" in capsys.readouterr().err) == said


def test_the_book_shows_what_its_file_says():
    """The panels of the parameter file: reduced ones say so, and each trial has its record (a page must not train)."""
    store = Store.at(Path(__file__).parents[1] / "book" / "results")
    file = Path(__file__).parents[1] / panels.REDUCED_FILE
    for settings in yaml.safe_load(file.read_text())["panels"]:
        panel = Panel.of(settings)
        assert bool(panel.reduced) == (panel != panels.FULL.get(panel.name))
        trials = [trial for of_setting in (panel.trials() | panel.tried_trials()).values() for trial in of_setting]
        assert [trial.name for trial in trials if not is_done(trial, store)] == []
        controls = [panels.control_experiment(panel, seed, name) for name, seed in panel.control_runs()]
        controls += [panels.before_training_experiment(panel)]
        assert [one.name for one in controls if not one.is_done(store)] == []
        masks = yaml.safe_load((file.parent / "augmentation.yml").read_text())["masks"]
        mine = f"{panel.dataset}-{panel.model}-"
        of_augmentation = [one.label for one in augmentation.experiments(masks=masks) if one.label.startswith(mine)]
        kept = {path.name.rsplit("-", 1)[0] for path in (store.folder / "panels").glob(f"{mine}*")}
        assert kept == {one.label for one in controls} | set(of_augmentation)  # and none of what no page reads
