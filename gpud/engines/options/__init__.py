"""What may be asked of engines: whose option is whose, reviewed flags, named profiles."""
