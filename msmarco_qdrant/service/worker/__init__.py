"""Worker: applies batches of the spool to the store."""
