"""Tests of the adapters; `make integrations` runs them where the frameworks are installed."""
