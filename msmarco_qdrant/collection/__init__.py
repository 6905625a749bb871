"""Create, describe, read, delete and migrate one collection."""
