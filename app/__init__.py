"""The online half: bytes in -> rows -> device -> bytes out."""
