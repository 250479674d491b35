"""Speed against floors; `make bench` runs it, the tests never do."""
