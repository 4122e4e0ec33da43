from typing import Any

import pytest

from ccd_lightning.modules.schedule import cosine_with_warmup


def test_cosine_has_the_published_rates(golden: dict[str, Any]) -> None:
    schedule = golden["schedule"]
    for epoch, rate in schedule["lr_at_epoch"].items():
        factor = cosine_with_warmup(int(epoch), schedule["epochs"], final=schedule["lr_decay_rate"] ** 3)
        assert schedule["lr"] * factor == pytest.approx(rate, abs=1e-9)


def test_with_updates_per_epoch_only_the_warmup_changes_within_an_epoch() -> None:
    factors = [cosine_with_warmup(step, 40, warmup=3, every=10) for step in range(40)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[10:20] == [cosine_with_warmup(1, 4)] * 10
    assert factors[39] == cosine_with_warmup(3, 4)


def test_warmup_rises_to_the_cosine() -> None:
    factors = [cosine_with_warmup(step, 1000, warmup=9) for step in range(12)]
    assert factors[0] == pytest.approx(0.1)
    assert factors == sorted(factors[:10]) + factors[10:]
    assert factors[9] == cosine_with_warmup(9, 1000)
