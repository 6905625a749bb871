"""Change the model of a collection without downtime."""
