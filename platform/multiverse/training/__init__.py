"""Training a Multiverse model: data, packing, attention of the layout, and the curriculum."""
