"""Linear velocities of a store's boxes, by themselves or within their parent."""
