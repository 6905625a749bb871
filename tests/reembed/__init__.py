"""Re-embedding, step by step; `tests/reembedding` has it under traffic."""
