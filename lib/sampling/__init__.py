"""The timestep grid, and the samplers that go from an image to x_t and back on it."""
