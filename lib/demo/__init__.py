"""The demo: faces of known factors, a small diffusion model of them, and a reader of factors."""
