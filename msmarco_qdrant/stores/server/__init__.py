"""A Qdrant server, Qdrant Cloud or the local mode of qdrant-client as a store."""
