"""Engine processes run inside promises."""
