//! Loading what a machine executes first.
