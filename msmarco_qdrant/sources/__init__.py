"""Files and streams to passages, queries and vectors."""
