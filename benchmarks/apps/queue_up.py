"""``python -m benchmarks.apps.queue_up MODULE COUNT EVENT…`` prints the ids of the deliveries."""

from __future__ import annotations

import json
import sys
from importlib import import_module

if __name__ == "__main__":
    ids = import_module(sys.argv[1]).queue(int(sys.argv[2]), sys.argv[3:])
    print(json.dumps(ids))
