"""Who may use which bytes."""
