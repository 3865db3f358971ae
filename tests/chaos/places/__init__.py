"""One function per place and fault: what the client saw, and what was left. Each uses a real process and real disks."""

from tests.chaos.places import disks, processes
from tests.chaos.places.place import PLACES, Place, Seen

__all__ = ["PLACES", "Place", "Seen", "disks", "processes"]
