"""Sidecar: ingests passages by HTTP or from files, and searches them soon after.

Every batch becomes a file in the spool that survives a crash. One worker applies the batches to the
store in order.
"""
