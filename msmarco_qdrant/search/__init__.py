"""Queries to ranked hits: the sync and async clients and the steps that they share."""
