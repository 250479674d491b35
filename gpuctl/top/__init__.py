"""`gpuctl top`: a node on a whole screen, as it changes. Drawn with Textual."""
