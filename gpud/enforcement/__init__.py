"""What keeps promises beyond the books: compute modes, attachments, and who keeps off whom."""
