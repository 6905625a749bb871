"""The sidecar: passages in by HTTP or by file, searchable soon after, whatever crashes between.

Whatever comes in, by whichever door, is a batch in the spool, a file that survives a crash; one
worker takes the batches in their order and applies them to the store.
"""
