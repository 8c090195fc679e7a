"""Whatever an application passes arrives as it was; no serializer on the way has a say."""

import json
from datetime import date, datetime, time, timezone
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webhooks_celery import emit


class Colour(Enum):
    RED = "red"


@pytest.fixture
def deliver(receiver, webhooks_file, make_app, run_worker):
    """Emits a payload and returns the body that the receiver gets."""
    file = webhooks_file({"events": ["*"], "url": receiver.url()})
    app = make_app(webhooks_config=file)
    run_worker(app)

    def deliver(payload: object) -> bytes:
        before = len(receiver.requests)
        [delivery] = emit("E", payload, app=app)
        request = receiver.wait_for(before + 1)[-1]
        assert request.headers["X-Immich-Delivery-Id"] == delivery
        return request.body

    return deliver


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        pytest.param(None, "null", id="none"),
        pytest.param(False, "false", id="false"),
        pytest.param("", '""', id="empty"),
        pytest.param(
            {"__type__": "x", "__value__": 1}, '{"__type__":"x","__value__":1}', id="kombu tag"
        ),
        pytest.param(
            {"at": {"__type__": "datetime", "__value__": "2025-11-20T12:34:56"}},
            '{"at":{"__type__":"datetime","__value__":"2025-11-20T12:34:56"}}',
            id="kombu datetime",
        ),
        pytest.param(
            datetime(2025, 11, 20, 12, 34, 56, 789012, tzinfo=timezone.utc),
            '"2025-11-20T12:34:56.789012+00:00"',
            id="datetime",
        ),
        pytest.param([date(2025, 1, 2), time(3, 4)], '["2025-01-02","03:04:00"]', id="date, time"),
        pytest.param(
            {UUID(int=7): Decimal("1.10")},
            '{"00000000-0000-0000-0000-000000000007":"1.10"}',
            id="uuid, decimal",
        ),
        pytest.param((Colour.RED, {1}), '["red",[1]]', id="enum, tuple, set"),
        pytest.param([2**64, -(10**5000)], f"[18446744073709551616,-1{'0' * 5000}]", id="big"),
        pytest.param([0.1, 1e300, -0.0, 1.0], "[0.1,1e+300,-0.0,1.0]", id="floats"),
        pytest.param("Zoë 東京 🙂 \u2028", '"Zoë 東京 🙂 \u2028"', id="unicode"),
        pytest.param("\x00\x1f\"\\/</script>", '"\\u0000\\u001f\\"\\\\/</script>"', id="escapes"),
        pytest.param({"\ud800": "\udfff"}, '{"\\ud800":"\\udfff"}', id="lone surrogates"),
        pytest.param({"b": 1, "a": 2}, '{"b":1,"a":2}', id="order"),
        pytest.param("x" * 3_000_000, f'"{"x" * 3_000_000}"', id="3 MB"),
    ],
)  # fmt: skip
def test_a_payload_arrives_as_its_json_text(payload, text, deliver):
    body = deliver(payload)
    assert body.partition(b'"payload":')[2] == text.encode() + b"}"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(payload=json_values)
def test_any_json_value_arrives_as_json_sees_it(payload, deliver):
    assert json.loads(deliver(payload))["payload"] == json.loads(json.dumps(payload))
