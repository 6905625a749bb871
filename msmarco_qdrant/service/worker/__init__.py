"""The worker that applies batches of the spool to the store."""
