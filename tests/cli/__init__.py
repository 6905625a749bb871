"""The commands that came after the first ones; `test_cli` has those."""
