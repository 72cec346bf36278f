"""Tasks: what is asked, how it is worded, and where its data come from."""
