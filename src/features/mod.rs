//! Feature caches: one pass of a checkpoint over a data set, kept as plain `.npy` files.
