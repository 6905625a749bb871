"""Re-embedding, step by step; `tests/reembed/concurrent` has it under traffic."""
