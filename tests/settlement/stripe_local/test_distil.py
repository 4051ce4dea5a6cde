"""Stripe's description comes from a wheel, is read as data, and keeps what validates."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from settlement.stripe_local.description import Description
from settlement.stripe_local.distil import MEMBER, description_in, distilled, packed
from settlement.stripe_local.handlers import HANDLERS

SCHEMAS = ("error", "line_item", "item", "customer_cash_balance_transaction")
DOCUMENT = {
    "info": {"version": "2030-01-01.test"},
    "paths": {
        "/v1/refunds": {
            "post": {
                "description": "prose",
                "requestBody": {
                    "content": {
                        "application/x-www-form-urlencoded": {
                            "schema": {"properties": {"description": {"type": "string", "description": "prose"}}}
                        }
                    }
                },
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/refund"}}}}
                },
            }
        },
        "/v1/accounts": {"get": {}},
    },
    "components": {
        "schemas": {
            "refund": {"properties": {"charge": {"$ref": "#/components/schemas/charge"}}, "description": "prose"},
            "charge": {"type": "object"},
            "unused": {"type": "object"},
            **{name: {"type": "object"} for name in SCHEMAS},
        }
    },
}


def test_what_is_kept_is_the_calls_their_schemas_and_no_prose(tmp_path: Path) -> None:
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, f"spec = {DOCUMENT!r}\n")
    made = distilled(description_in(wheel))
    assert made["version"] == "2030-01-01.test"
    assert list(made["operations"]) == ["POST /v1/refunds"]
    assert made["operations"]["POST /v1/refunds"]["form"]["properties"] == {"description": {"type": "string"}}
    assert set(made["schemas"]) == {"refund", "charge", *SCHEMAS}
    assert "prose" not in json.dumps(made)
    assert packed(made) == packed(made)
    assert json.loads(gzip.decompress(packed(made))) == made


def test_a_wheel_is_read_and_never_run(tmp_path: Path) -> None:
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, "spec = dict(paths=print('run'))\n")
    with pytest.raises(ValueError, match="malformed"):
        description_in(wheel)


def test_every_call_that_is_done_is_described() -> None:
    assert set(HANDLERS) <= set(Description.packaged().document["operations"])
