"""What an earlier life of the daemon ran, found again."""
