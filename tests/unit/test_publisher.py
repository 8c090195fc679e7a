"""What publishing raises, and how it travels."""

from __future__ import annotations

import pickle

import pytest
from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from webhooks_celery.publisher import BrokerFull, reason_of


def test_a_full_broker_is_told_with_what_to_look_at():
    assert str(BrokerFull()) == (
        "RabbitMQ takes no messages at present; see its memory and disk alarms."
    )
    assert isinstance(BrokerFull(), OperationalError)


def test_it_survives_the_way_from_a_child_of_the_pool():
    again = pickle.loads(pickle.dumps(BrokerFull()))
    assert (type(again), str(again)) == (BrokerFull, str(BrokerFull()))


@pytest.mark.parametrize("error", [BrokerFull(), ValueError("x")])
def test_the_reason_is_found_where_celery_has_wrapped_it(error):
    assert reason_of(Reject(error, requeue=False)) is error
    assert reason_of(error) is error
