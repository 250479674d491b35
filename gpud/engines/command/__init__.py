"""The engine `command`: any server that the configuration of this host tells how to run."""
