"""Backends that run a model: torch and OpenVINO."""
