"""Field stores and velocity stores: their schema, how they are opened, and what they say of themselves."""
