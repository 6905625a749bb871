"""Tests of what judges answers."""
