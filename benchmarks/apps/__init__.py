"""The Celery apps that are compared; each has a function that queues deliveries.

They find their broker, the receiver and the webhooks file in the environment, and their settings in
a ``celeryconfig.py``.
"""

from __future__ import annotations

from typing import Any

EVENT = "PersonCreate"


def payload(number: int) -> dict[str, Any]:
    """Return what is told with each event: about 200 bytes."""
    return {
        "id": number,
        "name": "Ada Lovelace",
        "birthDate": "1815-12-10",
        "thumbnailPath": "/upload/thumbs/8538265e/4b35/4a36/af7f-9ea850ce17d4.jpeg",
        "isHidden": False,
        "isFavorite": True,
        "color": None,
        "updatedAt": "2025-11-20T12:34:56.789Z",
    }
