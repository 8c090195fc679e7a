"""Which hooks an event goes to, found by index and not by trying every hook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .model import Hook


class Hooks:
    """The hooks of one file in their order, with look-up by id and by event name."""

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks = tuple(hooks)
        self._by_id = {hook.id: hook for hook in self._hooks}
        self._exact: dict[str, list[Hook]] = {}
        self._prefix: dict[str, list[Hook]] = {}
        for hook in self._hooks:
            if hook.enabled:
                for pattern in dict.fromkeys(hook.events):
                    if pattern.endswith("*"):
                        self._prefix.setdefault(pattern[:-1], []).append(hook)
                    else:
                        self._exact.setdefault(pattern, []).append(hook)
        self._prefix_lengths = sorted({len(prefix) for prefix in self._prefix})

    def matching(self, name: str, *, server: bool = False) -> list[Hook]:
        """Return the enabled hooks that want event ``name``, in the order of the file.

        ``server`` events go only to hooks with ``includeServerEvents``.
        """
        found = list(self._exact.get(name, ()))
        for length in self._prefix_lengths:
            if length > len(name):
                break
            found += self._prefix.get(name[:length], ())
        if len(found) > 1:
            by_position = {hook.position: hook for hook in found}
            found = [by_position[position] for position in sorted(by_position)]
        if server:
            return [hook for hook in found if hook.server_events]
        return found

    def get(self, hook_id: str) -> Hook | None:
        """Return the hook with this id, enabled or not."""
        return self._by_id.get(hook_id)

    def __len__(self) -> int:
        return len(self._hooks)

    def __iter__(self) -> Iterator[Hook]:
        return iter(self._hooks)
