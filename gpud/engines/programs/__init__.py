"""What the programs of engines are asked before they serve."""
