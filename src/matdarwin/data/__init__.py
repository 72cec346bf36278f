"""Data: bytes from the world to examples, and who may train on what."""
