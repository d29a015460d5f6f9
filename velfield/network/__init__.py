"""The U-Net, the bundle that it is kept in, and the model that predicts with it."""
