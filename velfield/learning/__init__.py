"""Training: batches, losses, steps, and what is kept between them."""
