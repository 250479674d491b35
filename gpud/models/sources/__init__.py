"""Where a model's files come from: what may be asked, fetched once, kept only when verified."""
