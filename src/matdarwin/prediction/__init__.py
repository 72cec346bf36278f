"""From a checkpoint and materials to calibrated predictions."""
