"""A simulation of the distributed ingest, in which its real decisions run against simulated I/O."""
