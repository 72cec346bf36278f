"""Base models, checkpoints on disk, and a prompt to an answer distribution."""
