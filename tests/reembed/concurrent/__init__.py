"""Re-embedding a collection while it is used: traffic with an oracle, kills, and interleavings."""
