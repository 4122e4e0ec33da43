import pytest
import torch
from torch import nn

from ccd_lightning.models.fitted import FittedModule


class Bank(FittedModule):
    """As many rows as there were images, and a part whose size is known from the beginning."""

    rows: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.empty(0, 3))
        self.layer = nn.Linear(3, 2)


def filled(count: int) -> Bank:
    bank = Bank()
    bank.rows = torch.rand(count, 3, dtype=torch.float64)
    return bank


@pytest.mark.parametrize("before", [0, 2, 9])
def test_the_checkpoint_decides_on_the_size(before: int) -> None:
    kept, bank = filled(5), filled(before)
    nn.Sequential(bank).load_state_dict(nn.Sequential(kept).state_dict())
    assert torch.equal(bank.rows, kept.rows)
    assert bank.rows.dtype == torch.float64


def test_parameters_and_missing_buffers_are_as_strict_as_ever() -> None:
    state = filled(5).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for layer\.weight"):
        Bank().load_state_dict(state | {"layer.weight": torch.rand(4, 3)})
    del state["rows"]
    with pytest.raises(RuntimeError, match=r'Missing key.* "rows"'):
        Bank().load_state_dict(state)
