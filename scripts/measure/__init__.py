"""What the documentation's tables and the defaults were measured with."""
