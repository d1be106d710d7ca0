//! Spore
