"""What an edit does to x_t on its way down."""
