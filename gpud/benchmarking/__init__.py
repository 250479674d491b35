"""How fast an instance serves: asked, measured from outside, judged, kept."""
