from __future__ import annotations

import pytest

from contracts.number_format import NumberFormatContract
from hirelc.policy import Choice, Granularity, NumberType

FORMATS = [Choice(bits, 1.0, kind, grain) for bits in range(2, 9) for kind in NumberType for grain in Granularity]


class TestEveryFormat(NumberFormatContract):
    @pytest.fixture(params=FORMATS, ids=[f"{c.bits}-{c.number_type}-{c.granularity}" for c in FORMATS])
    def choice(self, request: pytest.FixtureRequest) -> Choice:
        return request.param
