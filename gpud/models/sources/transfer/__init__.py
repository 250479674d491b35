"""One file over HTTP: asked for, resumed, bounded, verified, put in its place."""
