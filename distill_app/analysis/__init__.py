"""What came out of a network in depth: by class, by confidence, and beside its teacher."""
