"""Backends that run a model: the library's modules, and forward passes written for some shapes."""
