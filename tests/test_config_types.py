"""Wrong values in a config are found before anything is made of it."""

from __future__ import annotations

from typing import Any

import pytest

from unierase.config_types import check_types
from unierase.errors import UserError

SETTINGS = "unierase.editing.values.ValueSettings"
METHOD = "unierase.editing.method.UniErase"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": "many"}, "method.values.steps=many: give a whole number"),
        ({"steps": 2.5}, "method.values.steps=2.5: give a whole number"),
        ({"lr": True}, "method.values.lr=True: give a number"),
        ({"lr": None}, "method.values.lr=None: give a number"),
        (
            {"sleps": 3},
            "method.values=sleps: not available; choose one of: clamp",
        ),
    ],
)
def test_wrong_values(options: dict[str, Any], message: str) -> None:
    config = {"method": {"values": {"_target_": SETTINGS, **options}}}
    with pytest.raises(UserError, match=message):
        check_types(config)


def test_lists_and_alternatives() -> None:
    noise = {"_target_": "unierase.editing.token.TokenSettings", "noise_scale": None}
    check_types({"method": {"_target_": METHOD, "name": "u", "layers": [1, 2], "token": noise}})
    with pytest.raises(UserError, match=r"layers=\[1, 'b'\]: give a list, each a whole number"):
        check_types({"method": {"_target_": METHOD, "layers": [1, "b"]}})
    with pytest.raises(UserError, match="noise_scale=loud: give a number or null"):
        check_types({"token": {**noise, "noise_scale": "loud"}})


def test_whole_numbers_are_numbers() -> None:
    check_types({"_target_": SETTINGS, "lr": 1, "steps": 2})
