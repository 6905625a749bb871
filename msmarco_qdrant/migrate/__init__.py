"""The migration engine and the operations that a migration file can use."""
