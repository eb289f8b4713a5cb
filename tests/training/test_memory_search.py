from __future__ import annotations

import pytest
import torch
from support.processes import PATIENCE, forked
from support.worlds import phantoms, tiny

from medseg.errors import ResourceError
from medseg.training import memory_search
from medseg.training.trainer import Hardware, train


def holding(most_voxels):
    """A replacement of `fits` for a device that holds a batch of ``most_voxels``."""

    def fits(recipe, device):
        x = torch.tensor(recipe.patch.size).prod() * recipe.train.batch_size
        return bool(x <= most_voxels)

    return fits


def test_the_error_names_sizes_that_fit(monkeypatch):
    recipe = tiny(patch={"size": [16, 24, 16]}, train={"batch_size": 5})
    monkeypatch.setattr(memory_search, "fits", holding(16 * 24 * 16 * 2))
    error = memory_search.out_of_memory(recipe, torch.device("cuda"))
    assert isinstance(error, ResourceError)
    assert "batch_size 5 and patch.size [16, 24, 16]" in error.problem
    # Halved batches: 5 // 2 = 2 fits. Five smaller patches: sides go down to multiples of 4.
    assert "train.batch_size 2 with patch.size [16, 24, 16]" in error.remedy
    size = [int(n) for n in error.remedy.split("batch_size 5 with patch.size [")[1].split("]")[0].split(",")]
    assert size[0] * size[1] * size[2] * 5 <= 16 * 24 * 16 * 2
    assert all(n % 4 == 0 for n in size)


def test_the_error_states_that_nothing_fits(monkeypatch):
    monkeypatch.setattr(memory_search, "fits", holding(0))
    assert "smaller network" in memory_search.out_of_memory(tiny(), torch.device("cuda")).remedy


def test_on_a_cpu_the_next_smaller_sizes_are_named_untested(monkeypatch):
    monkeypatch.setattr(memory_search, "fits", lambda recipe, device: pytest.fail("a trial on the CPU"))
    recipe = tiny(patch={"size": [16, 24, 16]}, train={"batch_size": 5})
    error = memory_search.out_of_memory(recipe, torch.device("cpu"))
    # 5 // 2 = 2; the longest side, 24, by a fifth at least to a multiple of 4: 16.
    assert error.remedy == (
        "try train.batch_size 2 with patch.size [16, 24, 16] "
        "or train.batch_size 5 with patch.size [16, 16, 16]"
    )


def test_fits_runs_a_real_training_step():
    assert memory_search.fits(tiny(), torch.device("cpu"))


@pytest.mark.parametrize(("optimizer", "kind"), [("adamw", "AdamW"), ("sgd", "SGD")])
def test_two_steps_with_the_recipes_optimiser_are_tried(monkeypatch, optimizer, kind):
    """The second step holds the optimiser's state beside the feature maps."""
    steps, step = [], getattr(torch.optim, kind).step

    def counted(self, *args, **kwargs):
        steps.append(type(self).__name__)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(getattr(torch.optim, kind), "step", counted)
    assert memory_search.fits(tiny(train={"optimizer": optimizer}), torch.device("cpu"))
    assert steps == [kind, kind]


def test_other_errors_are_passed_on(monkeypatch):
    monkeypatch.setattr(memory_search, "build_network", lambda recipe: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        memory_search.fits(tiny(), torch.device("cpu"))

    def broken(recipe):
        raise RuntimeError("something else")

    monkeypatch.setattr(memory_search, "build_network", broken)
    with pytest.raises(RuntimeError, match="something else"):
        memory_search.fits(tiny(), torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:.*no case has split val:medseg.errors.InputWarning")
def test_training_out_of_memory_becomes_that_error(tmp_path, monkeypatch):
    def full(self, batch, _):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("medseg.training.lightning_module.SegmentationModule.training_step", full)
    with pytest.raises(ResourceError, match=r"out of memory on cpu with train.batch_size 2"):
        train(tiny(), phantoms(tmp_path, "train"), tmp_path / "run", hardware=Hardware(workers=0))


@pytest.mark.slow
def test_a_real_lack_of_memory_is_detected(tmp_path):
    """The address space limited to what is in use and 2 GiB: the first activation of 8 GiB does not fit."""
    code = """
import resource, torch
from support.worlds import tiny
from medseg.training import memory_search
patch = {"size": [32, 32, 32]}
recipe = tiny(patch=patch, network={"widths": [16, 16, 16]}, train={"batch_size": 4096})
assert memory_search.fits(tiny(), torch.device("cpu"))  # everything is loaded
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, used + 2**31))
print(memory_search.fits(recipe, torch.device("cpu")), memory_search.fits(tiny(), torch.device("cpu")))
"""
    child = forked(code, output=tmp_path / "printed.txt")
    child.join(PATIENCE)
    printed = (tmp_path / "printed.txt").read_text()
    assert child.exitcode == 0, (child.exitcode, printed[-2000:])
    assert printed.split() == ["False", "True"]
