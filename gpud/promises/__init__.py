"""The ledger's decisions made durable, and told to whoever waits for them."""
