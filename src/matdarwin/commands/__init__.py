"""The commands of `darwin`: parse, call, print; the work is done elsewhere."""
