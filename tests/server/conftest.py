"""Fixtures of the server's tests; they stand in `helpers`, since the fault tests use them too."""

from tests.server.helpers import darwin, served_home, slow

__all__ = ["darwin", "served_home", "slow"]
