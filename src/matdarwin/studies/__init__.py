"""One file per study: the comparison as data first, then as tables and pictures."""
