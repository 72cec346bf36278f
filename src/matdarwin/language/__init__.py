"""The only place where an example becomes text, and a text a value."""
